import { type SDKUserMessage } from '@anthropic-ai/claude-agent-sdk';
import { deferred } from './deferred.js';

export interface Question {
  text: string;
  /** What it is called in the CLI's record. */
  uuid?: string | undefined;
}

/** What the CLI reads on stdin: one question at most, and then nothing until it is closed. Open, it can still be interrupted. */
export class PromptInput {
  private isClosed = false;
  private readonly closed = deferred<undefined>();

  /** The end of the input: a CLI that has answered leaves. */
  close(): void {
    this.isClosed = true;
    this.closed.resolve(undefined);
  }

  /** @param mayAsk the question waits for it */
  async *messages(question: Question | null, mayAsk: Promise<void>): AsyncGenerator<SDKUserMessage> {
    await Promise.race([mayAsk, this.closed.promise]);
    if (question && !this.isClosed) {
      const { text, uuid } = question;
      const message = { role: 'user' as const, content: [{ type: 'text' as const, text }] };
      const name = uuid === undefined ? {} : { uuid: uuid as NonNullable<SDKUserMessage['uuid']> };
      yield { type: 'user', message, parent_tool_use_id: null, ...name };
    }
    await this.closed.promise;
  }
}
