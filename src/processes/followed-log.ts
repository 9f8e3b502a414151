import { type ProcessEvent, sizeOf } from './process-events.schemas.js';

/** What is kept for readers that are nearly up to date; who is further behind reads the database. */
const MAX_RECENT = 256;
const MAX_RECENT_CHARACTERS = 1024 * 1024;

/** The live end of one log: its last events, and who waits for the next. */
export class FollowedLog {
  readers = 0;
  firstLook: NodeJS.Timeout | undefined;
  private recent: ProcessEvent[] = [];
  private recentCharacters = 0;
  private lastSeq = 0;
  private waiting = new Set<() => void>();

  constructor(readonly processId: string) {}

  /**
   * Takes what was published. A jump in `seq` empties what is kept, so that readers fall back on the database.
   * @returns whether it is news, which show by their `seq` what is missing before them
   */
  add(events: ProcessEvent[]): boolean {
    const before = this.lastSeq;
    for (const event of events) {
      if (event.seq <= this.lastSeq) continue;
      if (event.seq !== this.lastSeq + 1) this.forget();
      this.keep(event);
      this.lastSeq = event.seq;
    }
    this.wake();
    return before > 0 && this.lastSeq > before;
  }

  /** The log was looked up: it has come so far. */
  reached(seq: number): void {
    if (seq > this.lastSeq) {
      this.forget();
      this.lastSeq = seq;
    }
    this.wake();
  }

  /** The events after a seq, or null where they are not kept here. */
  recentAfter(seq: number): ProcessEvent[] | null {
    const first = this.recent[0];
    if (!first || seq < first.seq - 1 || seq >= this.lastSeq) return null;
    return this.recent.slice(seq - first.seq + 1);
  }

  hasMoreThan(seq: number): boolean {
    return this.lastSeq > seq;
  }

  /** Resolves when the log has more than that, or may have, or the signal aborts. */
  async newsAfter(seq: number, signal: AbortSignal): Promise<void> {
    if (!this.hasMoreThan(seq)) await this.nextWord(signal);
  }

  /** Resolves when anything is heard of the log, be it that there is nothing new, or the signal aborts. */
  async nextWord(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        this.waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.waiting.add(done);
      signal.addEventListener('abort', done);
    });
  }

  private keep(event: ProcessEvent): void {
    this.recent.push(event);
    this.recentCharacters += sizeOf(event);
    while (this.recent.length > MAX_RECENT || this.recentCharacters > MAX_RECENT_CHARACTERS) {
      const oldest = this.recent.shift();
      if (!oldest) return;
      this.recentCharacters -= sizeOf(oldest);
    }
  }

  private forget(): void {
    this.recent = [];
    this.recentCharacters = 0;
  }

  private wake(): void {
    for (const wake of [...this.waiting]) wake();
  }
}
