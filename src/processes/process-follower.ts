import { Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { isTransient } from '../platform/prisma/database-failure.js';
import { FollowedLog } from './followed-log.js';
import { ProcessChannel } from './process-channel.js';
import { isTerminal, type ProcessEvent, type TerminalEvent } from './process-events.schemas.js';
import { ProcessLogRepository } from './process-log.repository.js';

/** How long a reader may lag where Redis lost a message. */
const BACKSTOP_MS = 2_000;
/** How long it is waited for a word of a log, before it is looked up what was committed while nobody listened. */
const FIRST_WORD_MS = 250;
/** What a reader that is behind holds in memory: so many events, and no more bytes than that and one event. */
const PAGE = { limit: 200, maxBytes: 256 * 1024 };

/**
 * Follows logs for whoever reads them on this server: SSE, sockets and waiting requests alike, each at its own pace. There
 * is one subscription a process, however many read it; the log itself is the truth, and Redis only says where to look.
 */
@Injectable()
export class ProcessFollower implements OnApplicationShutdown {
  private readonly logger = new Logger(ProcessFollower.name);
  private readonly followed = new Map<string, FollowedLog>();
  private backstop: NodeJS.Timeout | null = null;

  constructor(
    private readonly log: ProcessLogRepository,
    private readonly channel: ProcessChannel,
  ) {}

  /**
   * Every event after a seq, in order, without gap or repeat: first what is there, then live. Ends after the terminal event
   * or, early, when the signal aborts.
   * @param known all that the log was a moment ago: then nothing is read before there is more
   */
  async *follow(
    processId: string,
    after: number,
    signal: AbortSignal,
    known: ProcessEvent[] = [],
  ): AsyncGenerator<ProcessEvent, void, undefined> {
    const followed = this.join(processId);
    followed.add(known);
    try {
      const isOver = () => signal.aborted;
      let seq = after;
      let isCaughtUp = known.length > 0;
      while (!isOver()) {
        let events = followed.recentAfter(seq);
        if (!events && isCaughtUp && !followed.hasMoreThan(seq)) {
          await followed.newsAfter(seq, signal);
          continue;
        }
        if (!events) {
          events = await this.readPage(processId, seq);
          // A log that is said, time and again, to be further than it is: its process was deleted, say.
          const isMissing = isCaughtUp && events?.length === 0 && followed.hasMoreThan(seq);
          if (!events || isMissing) await followed.nextWord(signal);
          if (!events) continue;
          isCaughtUp = events.length === 0;
          if (isOver()) return;
        }
        for (const event of events) {
          yield event;
          seq = event.seq;
          if (isTerminal(event) || isOver()) return;
        }
      }
    } finally {
      this.leave(followed);
    }
  }

  /** The terminal event, or null when the signal aborts first. */
  async untilEnd(
    processId: string,
    after: number,
    signal: AbortSignal,
    known: ProcessEvent[] = [],
  ): Promise<TerminalEvent | null> {
    for await (const event of this.follow(processId, after, signal, known))
      if (isTerminal(event)) return event;
    return null;
  }

  onApplicationShutdown(): void {
    if (this.backstop) clearInterval(this.backstop);
    for (const { firstLook } of this.followed.values()) clearTimeout(firstLook);
  }

  /** What the log holds after a seq; null while the database is away, which a reader sits out. */
  private async readPage(processId: string, after: number): Promise<ProcessEvent[] | null> {
    try {
      return await this.log.read(processId, after, PAGE);
    } catch (error) {
      if (!isTransient(error)) throw error;
      this.logger.debug({ err: error });
      return null;
    }
  }

  private join(processId: string): FollowedLog {
    const followed = this.followed.get(processId) ?? this.open(processId);
    followed.readers += 1;
    return followed;
  }

  private open(processId: string): FollowedLog {
    const followed = new FollowedLog(processId);
    this.followed.set(processId, followed);
    this.backstop ??= setInterval(() => void this.lookAgain([...this.followed.keys()]), BACKSTOP_MS);
    this.listen(followed).catch((err: unknown) => this.logger.debug({ err }));
    return followed;
  }

  /** What was committed before the subscription stood is found by one look after it, unless what comes next shows the gap. */
  private async listen(followed: FollowedLog): Promise<void> {
    const { processId } = followed;
    await this.channel.subscribeEvents(processId, (events) => {
      if (followed.add(events)) clearTimeout(followed.firstLook);
    });
    if (this.followed.get(processId) !== followed) return;
    followed.firstLook = setTimeout(() => void this.lookAgain([processId]), FIRST_WORD_MS);
  }

  private leave(followed: FollowedLog): void {
    followed.readers -= 1;
    if (followed.readers > 0) return;
    clearTimeout(followed.firstLook);
    this.followed.delete(followed.processId);
    this.channel.unsubscribeEvents(followed.processId);
    if (this.followed.size > 0 || !this.backstop) return;
    clearInterval(this.backstop);
    this.backstop = null;
  }

  private async lookAgain(processIds: string[]): Promise<void> {
    try {
      for (const [id, lastSeq] of await this.log.lastSeqs(processIds))
        this.followed.get(id)?.reached(lastSeq);
    } catch (err) {
      this.logger.warn({ err }, 'The logs that are followed could not be looked up.');
    }
  }
}
