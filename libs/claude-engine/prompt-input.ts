import { type SDKUserMessage } from '@anthropic-ai/claude-agent-sdk';
import { deferred } from './deferred.js';

/** What the CLI reads on stdin: one prompt, and then nothing until it is closed. Open, it can still be interrupted. */
export class PromptInput {
  private readonly closed = deferred<undefined>();

  constructor(private readonly prompt: string) {}

  /** The end of the input: a CLI that has answered leaves. */
  close(): void {
    this.closed.resolve(undefined);
  }

  async *messages(): AsyncGenerator<SDKUserMessage> {
    const message = { role: 'user' as const, content: [{ type: 'text' as const, text: this.prompt }] };
    yield { type: 'user', message, parent_tool_use_id: null };
    await this.closed.promise;
  }
}
