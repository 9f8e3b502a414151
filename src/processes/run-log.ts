import { setTimeout as sleep } from 'node:timers/promises';
import { isTransient } from '../platform/prisma/database-failure.js';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';
import type { Concluded, ProcessEndingsRepository } from './process-endings.repository.js';
import type { Appended, ProcessLogRepository, Run, RunBatch, RunFacts } from './process-log.repository.js';
import type { RunHistory, Verdict } from './run-verdict.js';
import { isStorable, makeStorable, splitHalfPair } from './text-safety.js';

export const STORE_RETRY_MS = 200;
/** How much may wait for the database before the run itself is made to wait. */
const HIGH_WATER_EVENTS = 1_000;
const HIGH_WATER_CHARACTERS = 4 * 1024 * 1024;
/** What sums up what readers have seen, and is not missed for a moment. */
const SUMMARIES: ReadonlySet<NewProcessEvent['type']> = new Set(['message', 'usage']);
/** An ending is read back with what was written before it. */
const LOST_ANSWER_PAGE = { limit: 1_000, maxBytes: 16 * 1024 * 1024 };

/** The run is another worker's by now, or has ended: nothing may be written for it any more. */
export class RunLost extends Error {
  override readonly name = 'RunLost';
}

type Delta = Extract<NewProcessEvent, { type: 'text' | 'thinking' }>;

export interface RunLogOptions {
  run: Run & { lastSeq: number };
  log: ProcessLogRepository;
  endings: ProcessEndingsRepository;
  /** There is something to take. */
  onWaiting: (log: RunLog) => void;
  onCommitted: (events: ProcessEvent[]) => void;
  /** A cancel was asked for while the run went on. */
  onCancelRequested: () => void;
  /** Nothing more can be written of what the run says: it must end. */
  onLost: () => void;
}

/** The log of one run, on its writer's side: what waits to be written, in order, and how the run ends. */
export class RunLog {
  private waiting: NewProcessEvent[] = [];
  private waitingCharacters = 0;
  private facts: RunFacts = {};
  /** The end of the last delta: the first half of a surrogate pair, which waits for the other. */
  private halfPair: Delta | null = null;
  /** The text that a delta would go on with. */
  private lastDelta: Delta | null = null;
  private isInHurry = false;
  /** Settles when everything that was appended is written, or lost. */
  private writing: PromiseWithResolvers | null = null;
  private lastSeq: number;
  private loss: RunLost | null = null;
  private failure: Error | null = null;
  private hasFailed = false;
  private hasBegunToConclude = false;
  private isAtEnd = false;
  private readonly whenLost = withResolvers();

  constructor(private readonly options: RunLogOptions) {
    this.lastSeq = options.run.lastSeq;
  }

  get isLost(): boolean {
    return this.loss !== null;
  }

  /** Whether nothing more of what was taken can be written. */
  get isBroken(): boolean {
    return this.isLost || this.hasFailed;
  }

  /** Whether somebody waits for what waits here. What only goes on with a text may wait for more of it. */
  get isUrgent(): boolean {
    return this.isInHurry;
  }

  /** Whether its end is being written, or is. */
  get isConcluding(): boolean {
    return this.hasBegunToConclude;
  }

  /** Whether its end is written: the lease is over with it. */
  get hasConcluded(): boolean {
    return this.isAtEnd;
  }

  /**
   * Notes that the run begins to act, before it does: a run that has asked the model and is lost must not pass for one that
   * never started.
   * @throws Error when it must not begin: it is lost, or a cancel was asked for
   */
  async begin(): Promise<void> {
    const { run, log, onCancelRequested } = this.options;
    const begun = await this.insist(() => log.begin(run));
    if (!begun) this.lose();
    else if (begun.cancelRequested) onCancelRequested();
    else return;
    throw this.loss ?? new Error('A cancel was asked for.');
  }

  /** Resolves when more may come. @throws RunLost @throws Error once, when the log could not be written */
  async append(event: NewProcessEvent, facts: RunFacts = {}): Promise<void> {
    this.throwIfBroken();
    this.facts = { ...this.facts, ...facts };
    this.enqueue(event);
    if (this.waiting.length === 0) return; // half a character: it comes with the rest
    this.writing ??= withResolvers();
    this.options.onWaiting(this);
    if (this.waiting.length >= HIGH_WATER_EVENTS || this.waitingCharacters >= HIGH_WATER_CHARACTERS)
      await this.settled();
  }

  /** Resolves when everything that was appended is in the log, or lost. */
  async settled(): Promise<void> {
    if (!this.writing) return;
    this.isInHurry = true;
    this.options.onWaiting(this);
    await this.writing.promise;
  }

  /**
   * Writes what still waits and what becomes of the process, all or nothing.
   * @throws RunLost
   * @throws Error once, when the log could not be written: the run has another end then
   */
  async conclude(judge: (run: RunHistory) => Verdict): Promise<Concluded> {
    this.hasBegunToConclude = true;
    await this.settled();
    this.throwIfBroken();
    this.releaseHalfPair();
    const { events } = this.take() ?? { events: [] };
    const { run, endings } = this.options;
    let answerLost = false;
    const concluded = await this.insist(async () => {
      try {
        return (
          (await endings.conclude(run, events, judge)) ?? (answerLost ? await this.readConclusion() : null)
        );
      } catch (error) {
        answerLost = true;
        throw error;
      }
    });
    if (!concluded) throw new RunLost();
    this.isAtEnd = true;
    this.options.onCommitted(concluded.events);
    return concluded;
  }

  /** What waits, for whoever writes it; answered by `wrote` or `lose`. Null where nothing does. */
  take(): RunBatch | null {
    this.isInHurry = false;
    if (this.waiting.length === 0) return null;
    const { run } = this.options;
    const batch = { run, lastSeq: this.lastSeq, events: this.waiting, facts: this.facts };
    this.waiting = [];
    this.waitingCharacters = 0;
    this.facts = {};
    return batch;
  }

  /** The events that were taken, or the first of them, are in the log. */
  wrote({ events, cancelRequested }: Appended): void {
    this.lastSeq += events.length;
    this.options.onCommitted(events);
    if (cancelRequested) this.options.onCancelRequested();
  }

  /** What was taken is written. */
  settle(): void {
    if (this.waiting.length > 0) return;
    this.writing?.resolve();
    this.writing = null;
  }

  /** Gives up: the run is not ours any more. */
  lose(): void {
    if (this.loss) return;
    this.loss = new RunLost();
    this.abandonWaiting();
    this.whenLost.resolve();
    this.options.onLost();
  }

  /** What was taken cannot be written, however often it is tried. */
  fail(reason: unknown): void {
    if (this.isBroken) return;
    this.hasFailed = true;
    this.failure = new Error('The log cannot be written.', { cause: reason });
    this.abandonWaiting();
    this.options.onLost();
  }

  private abandonWaiting(): void {
    this.waiting = [];
    this.writing?.resolve();
    this.writing = null;
  }

  private throwIfBroken(): void {
    if (this.loss) throw this.loss;
    const { failure } = this;
    this.failure = null;
    if (failure) throw failure;
  }

  /** Tries again while the database is away, for as long as the run may still be ours. */
  private async insist<T>(write: () => Promise<T>): Promise<T> {
    for (;;) {
      if (this.loss) throw this.loss;
      try {
        return await this.unlessLost(write());
      } catch (error) {
        if (!isTransient(error)) throw error;
        await sleep(STORE_RETRY_MS);
      }
    }
  }

  /** A write whose answer was lost may have been done: the log tells. */
  private async readConclusion(): Promise<Concluded> {
    const { log, run } = this.options;
    const state = (await log.findRuns([run.processId])).get(run.processId);
    if (state?.fence !== run.fence) throw new RunLost();
    const events = await log.read(run.processId, this.lastSeq, LOST_ANSWER_PAGE);
    return { events, next: null };
  }

  /** A query that is never answered must not keep a run that is lost. */
  private async unlessLost<T>(writing: Promise<T>): Promise<T> {
    writing.catch(() => undefined);
    const lost = this.whenLost.promise.then(() => {
      throw this.loss ?? new RunLost();
    });
    return Promise.race([writing, lost]);
  }

  private enqueue(event: NewProcessEvent): void {
    if (event.type !== 'text' && event.type !== 'thinking') {
      this.releaseHalfPair();
      this.push(writable(event));
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

  private enqueueDelta(said: Delta): void {
    const delta = makeStorable(said);
    const last = this.waiting.at(-1);
    if (!this.lastDelta || !isSameMessage(this.lastDelta, delta)) this.isInHurry = true;
    this.lastDelta = delta;
    this.waitingCharacters += delta.text.length;
    if (last && isSameMessage(last, delta)) last.text += delta.text;
    else this.waiting.push(delta);
  }

  private push({ event, characters }: { event: NewProcessEvent; characters: number }): void {
    this.waiting.push(event);
    this.lastDelta = null;
    if (!SUMMARIES.has(event.type)) this.isInHurry = true;
    this.waitingCharacters += characters;
  }
}

interface PromiseWithResolvers {
  promise: Promise<void>;
  resolve: () => void;
}

function withResolvers(): PromiseWithResolvers {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => (resolve = settle));
  return { promise, resolve };
}

const isSameMessage = (event: NewProcessEvent, { type, messageId }: Delta): event is Delta =>
  event.type === type && event.messageId === messageId;

/** What takes the place of an event that no log can hold: a tool's input that is not JSON, say. */
export const unwritable = ({ type }: NewProcessEvent): NewProcessEvent => ({
  type: 'raw',
  line: { type: 'unwritable_event', event: type },
});

/** Now, while it can still be told which event it is that cannot be written. */
function writable(event: NewProcessEvent): { event: NewProcessEvent; characters: number } {
  try {
    const json = JSON.stringify(event);
    return { event: isStorable(json) ? event : makeStorable(event), characters: json.length };
  } catch {
    return { event: unwritable(event), characters: 0 };
  }
}
