import { z } from 'zod';
import { type TranscriptEntry } from './transcript.js';

/** A further message of the user, sent to the model as it is. */
export interface UserMessage {
  /** A UUID, its name in the transcript. */
  id: string;
  text: string;
}

/** The run's side: what is said goes there, for as long as there is a CLI. */
interface Wheel {
  send: (message: UserMessage) => void;
  stopTurn: () => void;
}

/** How far the CLI has come with something that it was sent. */
const LifecycleSchema = z.object({
  type: z.literal('command_lifecycle'),
  command_uuid: z.string(),
  state: z.string(),
});

/**
 * What a run is told while it goes on. A message that comes while the model speaks is answered after that; one that comes
 * while a tool runs goes to the model with the tool's result. The run ends with the answer to the last one.
 */
export class Steering {
  private readonly known = new Set<string>();
  private readonly unread = new Map<string, UserMessage>();
  private wheel: Wheel | null = null;
  private isInterrupted = false;

  /**
   * @param mayEnd called when everything is answered: whether nothing more will be said. Where it resolves with false, more has
   *   been said meanwhile; where it rejects, the run ends.
   */
  constructor(private readonly mayEnd: () => Promise<boolean> = () => Promise.resolve(true)) {}

  /** The same message again is not said twice. */
  say(message: UserMessage): void {
    if (this.known.has(message.id)) return;
    this.known.add(message.id);
    this.unread.set(message.id, message);
    this.wheel?.send(message);
  }

  /** Stops the turn. What has been said and not read is answered then; otherwise the run ends with what it has. */
  interrupt(): void {
    this.isInterrupted = true;
    this.wheel?.stopTurn();
  }

  /** How many messages have been said. */
  get count(): number {
    return this.known.size;
  }

  /** Whether more was wanted of the run than an answer to its prompt. */
  get isUsed(): boolean {
    return this.isInterrupted || this.known.size > 0;
  }

  get hasUnread(): boolean {
    return this.unread.size > 0;
  }

  /** For the run: takes out what the conversation holds already. */
  takeKept(entries: readonly TranscriptEntry[]): UserMessage[] {
    const kept = new Set(entries.flatMap(sentIn));
    return [...this.unread.values()].filter(({ id }) => kept.has(id) && this.unread.delete(id));
  }

  /** For the run: what was said so far is sent at once. */
  attach(wheel: Wheel): void {
    this.wheel = wheel;
    for (const message of this.unread.values()) wheel.send(message);
    if (this.isInterrupted) wheel.stopTurn();
  }

  /** For the run, of each line of the CLI: the message that it has now read, if that is what it says. */
  see(line: unknown): UserMessage | null {
    const { command_uuid: id = '', state } = LifecycleSchema.safeParse(line).data ?? {};
    const message = this.unread.get(id);
    if (!message || state === 'queued') return null;
    this.unread.delete(id);
    return state === 'cancelled' ? null : message;
  }

  /** For the run, when everything is answered. */
  async isOver(): Promise<boolean> {
    const mayEnd = await this.mayEnd().catch(() => true);
    return mayEnd && !this.hasUnread;
  }
}

const SentSchema = z.object({
  uuid: z.string().optional(),
  /** Messages that waited together are one entry. */
  mergedSendUuids: z.array(z.string()).default([]),
  /** One that came while a tool ran. */
  attachment: z.object({ source_uuid: z.string().optional() }).optional(),
});

function sentIn(entry: TranscriptEntry): string[] {
  const { uuid, mergedSendUuids = [], attachment } = SentSchema.safeParse(entry).data ?? {};
  return [uuid, attachment?.source_uuid, ...mergedSendUuids].filter((id) => id !== undefined);
}
