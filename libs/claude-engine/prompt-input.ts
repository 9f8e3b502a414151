import { type SDKUserMessage } from '@anthropic-ai/claude-agent-sdk';
import { EventQueue } from './event-queue.js';

export interface Question {
  text: string;
  /** What it is called in the CLI's record. */
  uuid?: string | undefined;
}

/** What the CLI reads on stdin: questions as they come, until it is closed. Open, it can still be interrupted. */
export class PromptInput {
  private isSilent = false;
  private readonly questions = new EventQueue<Question>();

  /** Waits for its turn after what was asked before. Does nothing where it is closed. */
  ask(question: Question): void {
    this.questions.push(question);
  }

  /** Nothing more is read, but the input stays open: the CLI can still be interrupted. */
  silence(): void {
    this.isSilent = true;
  }

  /** The end of the input: a CLI that has answered leaves. A question that was not read yet is not asked any more. */
  close(): void {
    this.isSilent = true;
    this.questions.close();
  }

  async *messages(): AsyncGenerator<SDKUserMessage> {
    for (;;) {
      const { value } = await this.questions.next();
      if (!value) return;
      if (!this.isSilent) yield toMessage(value);
    }
  }
}

function toMessage({ text, uuid }: Question): SDKUserMessage {
  const message = { role: 'user' as const, content: [{ type: 'text' as const, text }] };
  const name = uuid === undefined ? {} : { uuid: uuid as NonNullable<SDKUserMessage['uuid']> };
  return { type: 'user', message, parent_tool_use_id: null, ...name };
}
