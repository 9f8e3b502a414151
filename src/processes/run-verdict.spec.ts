import fc from 'fast-check';
import type { Outcome } from './process-outcome.js';
import {
  afterDrain,
  afterEnding,
  afterFence,
  afterLoss,
  type RunHistory,
  type Verdict,
} from './run-verdict.js';

const FIRST: RunHistory = {
  attempt: 1,
  maxAttempts: 1,
  retryOn: [],
  hasStarted: true,
  crashCount: 0,
  lossCount: 0,
  cancelRequested: false,
};
const USED = {
  usage: { inputTokens: 1, outputTokens: 2, cacheReadInputTokens: 3, cacheCreationInputTokens: 4 },
  costUsd: 0.5,
};
const NOTHING_USED = { usage: null, costUsd: null };

const failed = (code: string, retryAfterMs: number | null = null): Outcome => ({
  status: 'failed',
  error: { code, detail: 'It failed.', retryable: true, retryAfterMs },
  ...USED,
});
const SHUT_DOWN = failed('engine_unavailable');
const COMPLETED: Outcome = { status: 'completed', result: 'Done.', ...USED };
const CANCELLED: Outcome = { status: 'cancelled', stopReason: 'interrupted', ...USED };

const again = (fields: Partial<Extract<Verdict, { kind: 'again' }>> = {}): Verdict => ({
  kind: 'again',
  code: null,
  afterMs: 0,
  isLoss: false,
  spent: NOTHING_USED,
  ...fields,
});
const lost = (retryable: boolean) => ({
  kind: 'end',
  outcome: { status: 'failed', error: { code: 'worker_lost', retryable, retryAfterMs: null } },
});
const retrying = (on: string, maxAttempts = 3): RunHistory => ({ ...FIRST, maxAttempts, retryOn: [on] });

describe('what becomes of a process that its worker has lost touch with', () => {
  it('is what becomes of one whose worker is lost, but no crash, however often', () => {
    expect(afterFence({ ...FIRST, hasStarted: false, crashCount: 1, lossCount: 4 })).toEqual(again());
    expect(afterFence({ ...retrying('worker_lost'), crashCount: 1 })).toEqual(again({ code: 'worker_lost' }));
    expect(afterFence(FIRST)).toMatchObject(lost(true));
    const cancelled = { ...retrying('worker_lost'), cancelRequested: true };
    expect(afterFence(cancelled)).toEqual({ kind: 'end', outcome: { status: 'cancelled' } });
  });
});

describe('what becomes of a process whose worker is lost', () => {
  it('goes back to the queue when it never started, whatever its caller allows', () => {
    expect(afterLoss({ ...FIRST, hasStarted: false })).toEqual(again({ isLoss: true }));
  });

  it('fails as worker_lost, retryable, when it had started: an agent has side effects', () => {
    expect(afterLoss(FIRST)).toMatchObject(lost(true));
  });

  it('runs again, and its log says so, where its caller allows it', () => {
    expect(afterLoss(retrying('worker_lost'))).toEqual(again({ code: 'worker_lost', isLoss: true }));
    expect(afterLoss(retrying('timeout'))).toMatchObject(lost(true));
    expect(afterLoss({ ...retrying('worker_lost'), attempt: 3 })).toMatchObject(lost(true));
  });

  it('is in quarantine with the second worker that it had begun to act on', () => {
    const run = { ...retrying('worker_lost', 10), crashCount: 1, lossCount: 1, attempt: 2 };
    expect(afterLoss(run)).toMatchObject(lost(false));
  });

  it.each([true, false])('is in quarantine with the fifth worker at all, begun or not: %s', (hasStarted) => {
    const run = { ...retrying('worker_lost', 10), hasStarted };
    expect(afterLoss({ ...run, lossCount: 3 })).toMatchObject({ kind: 'again', isLoss: true });
    expect(afterLoss({ ...run, lossCount: 4 })).toMatchObject(lost(false));
  });

  it.each([true, false])('is cancelled if that was asked for, started or not: %s', (hasStarted) => {
    const run = {
      ...retrying('worker_lost'),
      hasStarted,
      cancelRequested: true,
      crashCount: 1,
      lossCount: 4,
    };
    expect(afterLoss(run)).toEqual({ kind: 'end', outcome: { status: 'cancelled' } });
  });
});

describe('what becomes of a process whose worker shuts down', () => {
  it('goes back to the queue when it never started, and no crash is counted', () => {
    expect(afterDrain({ ...FIRST, hasStarted: false }, SHUT_DOWN)).toEqual(again());
  });

  it('fails as worker_lost when it had started, with what it has used', () => {
    expect(afterDrain(FIRST, SHUT_DOWN)).toMatchObject(lost(true));
    expect(afterDrain(FIRST, SHUT_DOWN)).toMatchObject({ outcome: USED });
  });

  it('runs again where its caller allows it, and what it has used is kept', () => {
    expect(afterDrain(retrying('worker_lost'), SHUT_DOWN)).toEqual(
      again({ code: 'worker_lost', spent: USED }),
    );
  });

  it('is cancelled if that was asked for, with what it has used', () => {
    expect(afterDrain({ ...retrying('worker_lost'), cancelRequested: true }, SHUT_DOWN)).toEqual({
      kind: 'end',
      outcome: { status: 'cancelled', error: null, ...USED },
    });
  });
});

describe('what becomes of a run that comes to an end of its own', () => {
  it.each([COMPLETED, CANCELLED, failed('internal')])('is its ending: $status', (outcome) => {
    expect(afterEnding(FIRST, outcome)).toEqual({ kind: 'end', outcome });
  });

  it.each([COMPLETED, CANCELLED])('is its ending, whatever its caller allows: $status', (outcome) => {
    expect(afterEnding(retrying('internal'), outcome)).toEqual({ kind: 'end', outcome });
  });

  it('is another run after a failure of a kind that its caller allows it for', () => {
    expect(afterEnding(retrying('timeout'), failed('timeout'))).toEqual(
      again({ code: 'timeout', afterMs: 1_000, spent: USED }),
    );
    expect(afterEnding(retrying('timeout'), failed('stalled'))).toMatchObject({ kind: 'end' });
  });

  it('is its ending once the attempts are used up, or a cancel was asked for', () => {
    const run = retrying('timeout', 2);
    expect(afterEnding({ ...run, attempt: 2 }, failed('timeout'))).toMatchObject({ kind: 'end' });
    expect(afterEnding({ ...run, cancelRequested: true }, failed('timeout'))).toMatchObject({ kind: 'end' });
  });

  it('waits longer with each attempt, up to five minutes, and as long as the Messages API says', () => {
    const waits = (attempt: number, retryAfterMs: number | null = null) => {
      const verdict = afterEnding({ ...retrying('timeout', 100), attempt }, failed('timeout', retryAfterMs));
      return verdict.kind === 'again' ? verdict.afterMs : null;
    };
    expect([1, 2, 3, 4].map((attempt) => waits(attempt))).toEqual([1_000, 2_000, 4_000, 8_000]);
    expect([waits(20), waits(99)]).toEqual([300_000, 300_000]);
    expect([waits(1, 7_000), waits(1, 0), waits(1, 3_600_000)]).toEqual([7_000, 0, 3_600_000]);
  });

  it('fails where the Messages API says a time that its caller would not wait for, or nobody', () => {
    const limited = (retryAfterMs: number, queueTimeoutMs: number | null = null) =>
      afterEnding(
        { ...retrying('upstream_rate_limited'), queueTimeoutMs },
        failed('upstream_rate_limited', retryAfterMs),
      ).kind;
    expect([limited(86_400_000), limited(86_400_001)]).toEqual(['again', 'end']);
    expect([limited(60_000, 60_000), limited(60_001, 60_000)]).toEqual(['again', 'end']);
  });
});

it('whatever happens: nothing that has started runs again unasked, nor more often than allowed, nor after a cancel', () => {
  const codes = ['worker_lost', 'timeout', 'internal'];
  const history = fc.record({
    attempt: fc.integer({ min: 1, max: 10 }),
    maxAttempts: fc.integer({ min: 1, max: 10 }),
    retryOn: fc.subarray(codes),
    hasStarted: fc.boolean(),
    crashCount: fc.nat(3),
    lossCount: fc.nat(6),
    cancelRequested: fc.boolean(),
  });
  const outcome = fc.constantFrom(COMPLETED, CANCELLED, ...codes.map((code) => failed(code)));
  const judged = fc
    .tuple(history, outcome, fc.constantFrom('loss', 'drain', 'ending'))
    .map(([run, end, why]) => {
      if (why === 'loss') return { run, why, code: 'worker_lost', verdict: afterLoss(run) };
      if (why === 'drain') return { run, why, code: 'worker_lost', verdict: afterDrain(run, SHUT_DOWN) };
      return { run, why, code: end.error?.code ?? null, verdict: afterEnding(run, end) };
    });
  fc.assert(
    fc.property(judged, ({ run, why, code, verdict }) => {
      if (verdict.kind === 'end') return;
      expect(run.cancelRequested).toBe(false);
      expect(why === 'loss' && run.hasStarted && run.crashCount > 0).toBe(false);
      expect(why === 'loss' && run.lossCount > 3).toBe(false);
      expect(verdict.isLoss).toBe(why === 'loss');
      if (why !== 'ending' && !run.hasStarted) return;
      expect(run.attempt).toBeLessThan(run.maxAttempts);
      expect(run.retryOn).toContain(code);
      expect(verdict.code).toBe(code);
    }),
  );
});
