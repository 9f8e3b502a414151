import { type Anthropic } from '@anthropic-ai/sdk';
import { randomUUID } from 'node:crypto';
import { answerEntry, promptEntry } from './spoken-entry.js';
import { type SaidMessage } from './spoken-history.js';
import { INTERRUPTION } from './spoken-message.js';
import { type TranscriptEntry } from './transcript.js';

interface Said {
  id: string;
  model: string;
  text: string;
  stopReason: string | null;
  usage: object;
}

/** A conversation while it goes on without a CLI: as the Messages API is shown it, and as it is kept for the next run. */
export class SpokenExchange {
  readonly messages: Anthropic.MessageParam[];

  /**
   * @param place.parentUuid of the last entry that is kept
   * @param append resolves when it is kept
   */
  constructor(
    history: readonly SaidMessage[],
    private readonly place: { cliSessionId: string; parentUuid: string | null },
    private readonly append: (entry: TranscriptEntry) => Promise<void>,
  ) {
    this.messages = [...history];
  }

  /** Whether there is something to be answered. */
  get isOpen(): boolean {
    return this.messages.at(-1)?.role === 'user';
  }

  /** Shown, and not kept. */
  show(...messages: Anthropic.MessageParam[]): void {
    this.messages.push(...messages.filter(({ content }) => content.length > 0));
  }

  /** @param uuid what the user's words are called in the transcript */
  async ask(text: string, uuid: string): Promise<void> {
    this.show({ role: 'user', content: [{ type: 'text', text }] });
    await this.keep(promptEntry(this.place, { text, uuid }));
  }

  /** Keeps an answer; it is shown only where it is asked further. */
  async keepAnswer(said: Said): Promise<void> {
    await this.keep(answerEntry(this.place, said));
  }

  /** The turn was stopped, with this for its last words; null where it had said nothing. */
  async breakOff(said: Said | null): Promise<void> {
    if (said) {
      this.show({ role: 'assistant', content: [{ type: 'text', text: said.text }] });
      await this.keepAnswer(said);
    }
    await this.keep(promptEntry(this.place, { text: INTERRUPTION, uuid: randomUUID() }));
  }

  private async keep(entry: TranscriptEntry): Promise<void> {
    await this.append(entry);
    this.place.parentUuid = entry.uuid ?? null;
  }
}
