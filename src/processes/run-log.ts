import { setTimeout as sleep } from 'node:timers/promises';
import { isStoreOutage } from '../platform/prisma/store-outage.js';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';
import type { Outcome, ProcessLogRepository, Run, RunFacts } from './process-log.repository.js';
import { makeStorable, splitHalfPair } from './text-safety.js';

const RETRY_MS = 200;
/** How much may wait for the database before the run itself is made to wait. */
const HIGH_WATER_EVENTS = 1000;

/** The run is another worker's by now, or has ended: nothing may be written for it any more. */
export class RunLost extends Error {
  override readonly name = 'RunLost';
}

type Delta = Extract<NewProcessEvent, { type: 'text' | 'thinking' }>;

interface RunLogOptions {
  run: Run & { lastSeq: number };
  log: ProcessLogRepository;
  onCommitted: (events: ProcessEvent[]) => void;
  /** A cancel was asked for while the run went on. */
  onCancelRequested: () => void;
}

/**
 * Writes the log of one run. An event of an idle log is written at once; what comes while a write is on its way waits, and
 * goes together. A write whose answer was lost is tried again, does nothing where it was done, and is then looked up.
 */
export class RunLog {
  private waiting: NewProcessEvent[] = [];
  private facts: RunFacts = {};
  /** The end of the last delta: the first half of a surrogate pair, which waits for the other. */
  private halfPair: Delta | null = null;
  private writing: Promise<void> | null = null;
  private lost: RunLost | null = null;
  private lastSeq: number;

  constructor(private readonly options: RunLogOptions) {
    this.lastSeq = options.run.lastSeq;
  }

  /** Resolves when more may come. @throws RunLost */
  async append(event: NewProcessEvent, facts: RunFacts = {}): Promise<void> {
    if (this.lost) throw this.lost;
    this.enqueue(event);
    this.facts = { ...this.facts, ...facts };
    this.writing ??= this.writeWaiting();
    if (this.waiting.length >= HIGH_WATER_EVENTS) await this.writing;
  }

  /** Resolves when everything that was appended is in the log, or lost. */
  async settled(): Promise<void> {
    await this.writing;
  }

  /** Writes what still waits and the ending, in one transaction. @throws RunLost */
  async end(outcome: Outcome): Promise<void> {
    await this.writing;
    if (this.lost) throw this.lost;
    this.releaseHalfPair();
    const events = this.take();
    const { log, run, onCommitted } = this.options;
    const committed = await this.insist(
      () => log.end(run, events, makeStorable(outcome)),
      async () =>
        (await log.findRun(run))?.status === outcome.status
          ? log.read(run.processId, this.lastSeq, events.length + 1)
          : null,
    );
    if (!committed) throw new RunLost();
    onCommitted(committed);
  }

  private async writeWaiting(): Promise<void> {
    try {
      while (this.waiting.length > 0) await this.writeBatch();
    } catch (error) {
      this.lost =
        error instanceof RunLost ? error : new RunLost('The log cannot be written.', { cause: error });
      this.options.onCancelRequested();
    } finally {
      this.writing = null;
    }
  }

  private async writeBatch(): Promise<void> {
    const { log, run, onCommitted, onCancelRequested } = this.options;
    const facts = this.facts;
    this.facts = {};
    const events = this.take();
    const appended = await this.insist(
      () => log.append({ ...run, lastSeq: this.lastSeq }, events, facts),
      async () => {
        const found = await log.findRun(run);
        if (found?.status !== 'running' || found.fence !== run.fence) return null;
        if (found.lastSeq !== this.lastSeq + events.length) return null;
        return { events: await log.read(run.processId, this.lastSeq, events.length), cancelRequested: false };
      },
    );
    if (!appended) throw new RunLost();
    this.lastSeq += events.length;
    onCommitted(appended.events);
    if (appended.cancelRequested) onCancelRequested();
  }

  /** Tries again while the database is away, for as long as the lease may still be ours: then the fence says no. */
  private async insist<T>(
    write: () => Promise<T | null>,
    findWritten: () => Promise<T | null>,
  ): Promise<T | null> {
    for (;;) {
      try {
        return (await write()) ?? (await findWritten());
      } catch (error) {
        if (!isStoreOutage(error)) throw error;
        await sleep(RETRY_MS);
      }
    }
  }

  private take(): NewProcessEvent[] {
    const events = this.waiting;
    this.waiting = [];
    return makeStorable(events);
  }

  private enqueue(event: NewProcessEvent): void {
    if (event.type !== 'text' && event.type !== 'thinking') {
      this.releaseHalfPair();
      this.waiting.push(event);
      return;
    }
    if (this.halfPair && !isSameMessage(event, this.halfPair)) this.releaseHalfPair();
    const { whole, half } = splitHalfPair((this.halfPair?.text ?? '') + event.text);
    this.halfPair = half === '' ? null : { ...event, text: half };
    if (whole !== '') this.enqueueDelta({ ...event, text: whole });
  }

  /** The other half does not come any more. */
  private releaseHalfPair(): void {
    if (this.halfPair) this.enqueueDelta(this.halfPair);
    this.halfPair = null;
  }

  private enqueueDelta(delta: Delta): void {
    const last = this.waiting.at(-1);
    if (last && isSameMessage(last, delta)) last.text += delta.text;
    else this.waiting.push(delta);
  }
}

const isSameMessage = (event: NewProcessEvent, { type, messageId }: Delta): event is Delta =>
  event.type === type && event.messageId === messageId;
