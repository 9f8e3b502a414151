import type { IncomingHttpHeaders } from 'node:http';
import type { Purpose } from './question.js';

/**
 * How a request ended: `answered` in full; `failed` with an HTTP error or an `error` event; `cut` by us in the middle;
 * `client_gone` before its answer was over. `pending` until then.
 */
export type Outcome = 'answered' | 'failed' | 'cut' | 'client_gone' | 'pending';

/** One request, from when its body has been read. `outcome` (and, in time, `body`) change in place. */
export interface ReceivedRequest {
  /** When its headers came, in epoch milliseconds. */
  readonly at: number;
  readonly method: string;
  /** Path and query as sent. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly purpose: Purpose;
  readonly model: string | null;
  /** What the user typed last, as typed. Null unless `purpose` is `turn`: nobody typed the others. */
  readonly prompt: string | null;
  /** The parsed JSON; undefined if there was none, and once 200 later requests have come. */
  readonly body: unknown;
  /** From `x-api-key`, else from `authorization: Bearer`. */
  readonly apiKey: string | null;
  readonly outcome: Outcome;
}

type LogEntry = { -readonly [Field in keyof ReceivedRequest]: ReceivedRequest[Field] };

interface Waiter {
  match: (request: ReceivedRequest) => boolean;
  resolve: (request: ReceivedRequest) => void;
  reject: (reason: Error) => void;
  timer: NodeJS.Timeout;
}

/** A body of the CLI weighs 50 KB and more: ten thousand of them would be a leak. */
const BODIES_KEPT = 200;

/** The requests received, oldest first and bounded, and those who wait for one. */
export class RequestLog {
  readonly requests: LogEntry[] = [];
  readonly #waiters = new Set<Waiter>();

  /** @param bound how many requests are kept; older ones are forgotten */
  constructor(private readonly bound: number) {}

  /** Logs a request, pending. Returns what settles it. */
  add(request: Omit<ReceivedRequest, 'outcome'>): (outcome: Outcome) => void {
    const entry: LogEntry = { ...request, outcome: 'pending' };
    this.requests.push(entry);
    if (this.requests.length > this.bound) this.requests.shift();
    const old = this.requests.at(-1 - BODIES_KEPT);
    if (old) old.body = undefined;
    this.#tell(entry);
    return (outcome) => {
      if (entry.outcome !== 'pending') return;
      entry.outcome = outcome;
      this.#tell(entry);
    };
  }

  /**
   * The oldest request that satisfies `match`, as soon as there is one. Asked again whenever an outcome is known.
   * Rejects after `timeoutMs`, and when the log is closed.
   */
  waitFor(match: (request: ReceivedRequest) => boolean, timeoutMs: number): Promise<ReceivedRequest> {
    const known = this.requests.find(match);
    if (known) return Promise.resolve(known);
    const waiting = new Promise<ReceivedRequest>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        const others = this.requests.length;
        reject(new Error(`No such request within ${timeoutMs} ms; ${others} others are in the log.`));
      }, timeoutMs);
      const waiter: Waiter = { match, resolve, reject, timer };
      this.#waiters.add(waiter);
    });
    // Whoever gave up on it, say a test that failed before, must not take the process down.
    waiting.catch(() => undefined);
    return waiting;
  }

  /** Forgets all requests. Whoever waits goes on waiting. */
  clear(): void {
    this.requests.length = 0;
  }

  /** Rejects whoever waits. */
  close(): void {
    for (const waiter of this.#waiters) {
      clearTimeout(waiter.timer);
      waiter.reject(new Error('The Messages API was closed before such a request came.'));
    }
    this.#waiters.clear();
  }

  #tell(entry: LogEntry): void {
    for (const waiter of this.#waiters) {
      if (!waiter.match(entry)) continue;
      clearTimeout(waiter.timer);
      this.#waiters.delete(waiter);
      waiter.resolve(entry);
    }
  }
}
