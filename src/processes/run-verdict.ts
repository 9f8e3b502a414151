import type { Outcome } from './process-outcome.js';
import type { ProcessError } from './processes.schemas.js';

/** What is known of a run when it is over, or its worker is. */
export interface RunHistory {
  attempt: number;
  maxAttempts: number;
  /** The error codes after which the caller lets it run again. */
  retryOn: readonly string[];
  /** Whether this attempt has begun to act. */
  hasStarted: boolean;
  /** How many workers were lost with it before, after they had begun to act on it. */
  crashCount: number;
  /** How many workers were lost with it before, all in all. */
  lossCount: number;
  cancelRequested: boolean;
  /** How long its caller would let it wait for its start; null for as long as it takes. */
  queueTimeoutMs?: number | null;
}

/** What becomes of a process whose run is over: it ends, or waits for another run. */
export type Verdict =
  | { kind: 'end'; outcome: Outcome }
  | {
      kind: 'again';
      /** What the log says about it; null where nothing has happened that a reader could have seen. */
      code: string | null;
      afterMs: number;
      /** Its worker is lost. */
      isLoss: boolean;
      /** What the run used that is over. */
      spent: Pick<Outcome, 'usage' | 'costUsd'>;
    };

/** With which worker that is lost after it had begun to act on a process, that is suspected to be the reason. */
const MAX_CRASHES = 2;
/** The same for all that are lost with it: those that had not begun are more often chance, and cost nothing to repeat. */
const MAX_LOSSES = 5;
const FIRST_BACKOFF_MS = 1_000;
const MAX_BACKOFF_MS = 5 * 60 * 1000;
/** Until when a process is parked for a rate limit, at most. */
const MAX_PARKED_MS = 24 * 60 * 60 * 1000;

const lost = (detail: string, retryable: boolean): Outcome => ({
  status: 'failed',
  error: { code: 'worker_lost', detail, retryable, retryAfterMs: null },
});

/** The worker has not been heard of for the length of a lease. */
export function afterLoss(run: RunHistory): Verdict {
  if (run.cancelRequested) return { kind: 'end', outcome: { status: 'cancelled' } };
  const losses = run.lossCount + 1;
  if (losses >= MAX_LOSSES || (run.hasStarted && run.crashCount + 1 >= MAX_CRASHES)) {
    const detail = `${losses} workers were lost while they had this: it is not run again.`;
    return { kind: 'end', outcome: lost(detail, false) };
  }
  if (!run.hasStarted) return again(null, { isLoss: true });
  if (mayRepeat(run, 'worker_lost')) return again('worker_lost', { isLoss: true });
  return { kind: 'end', outcome: lost('The worker that ran this has not been heard of.', true) };
}

/** The worker lives, and could not prove for a while that the run is its own, or never heard that it is. */
export function afterFence(run: RunHistory): Verdict {
  if (run.cancelRequested) return { kind: 'end', outcome: { status: 'cancelled' } };
  if (!run.hasStarted) return again(null, {});
  if (mayRepeat(run, 'worker_lost')) return again('worker_lost', {});
  const detail = 'The server that ran this lost touch with its database, and ended the run.';
  return { kind: 'end', outcome: lost(detail, true) };
}

/** The worker has ended it itself: it shuts down, or has lost touch. */
export function afterDrain(run: RunHistory, outcome: Outcome): Verdict {
  if (run.cancelRequested) return { kind: 'end', outcome: { ...outcome, status: 'cancelled', error: null } };
  if (!run.hasStarted) return again(null, {});
  if (mayRepeat(run, 'worker_lost')) return again('worker_lost', { spent: outcome });
  const detail = outcome.error?.detail ?? 'The server that ran this was shut down.';
  return { kind: 'end', outcome: { ...outcome, ...lost(detail, true) } };
}

/** The run has come to an end of its own. */
export function afterEnding(run: RunHistory, outcome: Outcome): Verdict {
  const { error } = outcome;
  if (!error || run.cancelRequested || !mayRepeat(run, error.code)) return { kind: 'end', outcome };
  const longestMs = Math.min(run.queueTimeoutMs ?? MAX_PARKED_MS, MAX_PARKED_MS);
  // To ask before that would be refused again.
  if ((error.retryAfterMs ?? 0) > longestMs) return { kind: 'end', outcome };
  return again(error.code, { afterMs: backoffMs(run.attempt, error), spent: outcome });
}

// An agent has side effects: what has begun to act runs again only where the caller allows it.
const mayRepeat = ({ attempt, maxAttempts, retryOn }: RunHistory, code: string) =>
  attempt < maxAttempts && retryOn.includes(code);

function again(
  code: string | null,
  { afterMs = 0, isLoss = false, spent }: { afterMs?: number; isLoss?: boolean; spent?: Outcome },
): Verdict {
  const { usage = null, costUsd = null } = spent ?? {};
  return { kind: 'again', code, afterMs, isLoss, spent: { usage, costUsd } };
}

/** Doubles with each attempt, unless the Messages API has said how long. */
function backoffMs(attempt: number, { retryAfterMs }: ProcessError): number {
  return retryAfterMs ?? Math.min(FIRST_BACKOFF_MS * 2 ** (attempt - 1), MAX_BACKOFF_MS);
}
