import { type SDKUserMessage } from '@anthropic-ai/claude-agent-sdk';
import { deferred } from './deferred.js';

export interface Question {
  text: string;
  /** What it is called in the CLI's record. */
  uuid?: string | undefined;
}

/** What the CLI reads on stdin: one question at most, and then what is added, until it is closed. Open, it can be interrupted. */
export class PromptInput {
  private isClosed = false;
  private isSilent = false;
  private readonly added: Question[] = [];
  private readonly closed = deferred<undefined>();
  private wake: () => void = () => undefined;

  /** Waits for its turn after what was added before, and after the first question. */
  add(question: Question): void {
    this.added.push(question);
    this.wake();
  }

  /** Nothing more is read, but the input stays open: the CLI can still be interrupted. */
  silence(): void {
    this.isSilent = true;
  }

  /** The end of the input: a CLI that has answered leaves. What was added and not read is not read any more. */
  close(): void {
    this.isClosed = true;
    this.closed.resolve(undefined);
  }

  /** @param mayAsk the question waits for it, as does everything after it */
  async *messages(question: Question | null, mayAsk: Promise<void>): AsyncGenerator<SDKUserMessage> {
    await Promise.race([mayAsk, this.closed.promise]);
    if (question) this.added.unshift(question);
    while (!this.isClosed) {
      const next = this.isSilent ? undefined : this.added.shift();
      if (next) yield toMessage(next);
      else await Promise.race([this.closed.promise, new Promise<void>((resolve) => (this.wake = resolve))]);
    }
  }
}

function toMessage({ text, uuid }: Question): SDKUserMessage {
  const message = { role: 'user' as const, content: [{ type: 'text' as const, text }] };
  const name = uuid === undefined ? {} : { uuid: uuid as NonNullable<SDKUserMessage['uuid']> };
  return { type: 'user', message, parent_tool_use_id: null, ...name };
}
