import { v7 as uuid } from 'uuid';
import { tick } from '../../test/support/fake-log.js';
import { startTcpProxy } from '../../test/support/tcp-proxy.js';
import { LEASE_MS, STARTED, WriteSide } from '../../test/support/write-side.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import type { Outcome } from './process-outcome.js';
import { toProcess } from './process-view.js';
import { afterDrain, afterEnding, afterLoss, type RunHistory, type Verdict } from './run-verdict.js';

const COMPLETED: Outcome = {
  status: 'completed',
  result: 'Done.',
  stopReason: 'end_turn',
  usage: { inputTokens: 10, outputTokens: 5, cacheReadInputTokens: 2, cacheCreationInputTokens: 1 },
  costUsd: 0.25,
  numTurns: 1,
};
const RICH: Outcome = {
  ...COMPLETED,
  structuredResult: { b: 1, a: { 2: 'two', 1: 'one' } },
  model: 'another-model',
  permissionDenials: [{ name: 'Write', toolUseId: 'a-tool-use', input: { path: 'a“ü”' } }],
  filesChanged: { count: 1, items: [{ path: 'a', change: 'added' }] },
};
const OVERLOADED: Outcome = {
  ...COMPLETED,
  status: 'failed',
  result: null,
  error: { code: 'upstream_overloaded', detail: 'Overloaded.', retryable: true, retryAfterMs: null },
};
const RETRIES = { maxAttempts: 3, retryOn: ['upstream_overloaded', 'worker_lost'] };

const end =
  (outcome: Outcome = COMPLETED) =>
  (): Verdict => ({ kind: 'end', outcome });
const ending = (outcome: Outcome) => (run: RunHistory) => afterEnding(run, outcome);
const said = (text: string): NewProcessEvent => ({ type: 'text', messageId: 'm', text });

describe('the end of a run', () => {
  let side: WriteSide;

  beforeAll(async () => {
    side = await WriteSide.open();
  });
  afterAll(() => side.close());
  beforeEach(() => side.clear());

  describe('running → completed, failed, cancelled', () => {
    it.each<Outcome>([COMPLETED, RICH, OVERLOADED, { status: 'cancelled', stopReason: 'interrupted' }])(
      'is the last append, together with what still waited: $status',
      async (outcome) => {
        const run = await side.startedRun();
        const concluded = await side.endings.conclude(run, [said('a'), said('b')], end(outcome));
        const events = await side.events(run.processId);
        expect(concluded).toEqual({ events: events.slice(3), next: null });
        expect(events.map(({ seq, type }) => [seq, type])).toEqual([
          [1, 'created'],
          [2, 'queued'],
          [3, 'started'],
          [4, 'text'],
          [5, 'text'],
          [6, outcome.status],
        ]);
        const row = await side.find(run.processId);
        expect(row).toMatchObject({
          status: outcome.status,
          result: outcome.result ?? null,
          error: outcome.error ?? null,
          usage: outcome.usage ?? null,
          costUsd: outcome.costUsd ?? null,
          stopReason: outcome.stopReason,
          owner: null,
          leaseUntil: null,
          lastSeq: 6,
          finishedAt: expect.any(Date) as Date,
        });
        const { model = row.model, permissionDenials = [], filesChanged = null } = outcome;
        expect(row).toMatchObject({ model, permissionDenials, filesChanged });
        // In the order of the model's words.
        const { structuredResult = null } = outcome;
        expect(JSON.stringify(row.structuredResult)).toBe(JSON.stringify(structuredResult));
        expect(events.at(-1)).toMatchObject({ process: toProcess(row, null) });
      },
    );

    it('counts a turn of the session, if the CLI had started', async () => {
      const headOf = async (id: string) => {
        const { sessionId } = await side.find(id);
        return (await side.prisma.session.findUniqueOrThrow({ where: { id: sessionId } })).head;
      };
      const started = await side.startedRun();
      await side.endings.conclude(started, [], end());
      const never = await side.run();
      await side.endings.conclude(never, [], end());
      expect([await headOf(started.processId), await headOf(never.processId)]).toEqual([1, 0]);
    });

    it('counts a turn, too, whose last attempt never came to its start', async () => {
      const run = await side.startedRun(RETRIES);
      await side.endings.conclude(run, [], ending(OVERLOADED));
      await side.endings.cancel(run.processId, side.userId);
      const { sessionId } = await side.find(run.processId);
      expect(await side.prisma.session.findUnique({ where: { id: sessionId } })).toMatchObject({ head: 1 });
    });

    it('names what waits next in its session, if anything', async () => {
      const alone = await side.startedRun();
      expect(await side.endings.conclude(alone, [], end())).toMatchObject({ next: null });
      const run = await side.startedRun();
      const { sessionId: id } = await side.find(run.processId);
      const session = { kind: 'continued', id } as const;
      const next = await side.submit({ session });
      await side.submit({ session, priority: 9 });
      await side.submit();
      expect(await side.endings.conclude(run, [], end())).toMatchObject({
        next: { id: next, afterMs: 0 },
      });
    });

    it('is closed to another fence, and to everybody once it is written', async () => {
      const run = await side.startedRun();
      const another = { ...run, fence: run.fence + 1 };
      expect(await side.endings.conclude(another, [said('a')], end())).toBeNull();
      await side.endings.conclude(run, [], end());
      const ended = await side.find(run.processId);
      expect(await side.endings.conclude(run, [], end(OVERLOADED))).toBeNull();
      expect(await side.log.append([{ run, lastSeq: 4, events: [said('late')], facts: {} }])).toEqual(
        new Map(),
      );
      expect(await side.endings.cancel(run.processId, side.userId)).toEqual({ kind: 'too_late' });
      expect(await side.endings.failOverdue(run.processId, OVERLOADED)).toBeNull();
      expect(await side.find(run.processId)).toEqual(ended);
      expect(await side.eventTypes(run.processId)).toEqual(['created', 'queued', 'started', 'completed']);
    });

    it('has one winner, whoever brings theirs first', async () => {
      const run = await side.startedRun();
      const endings = await Promise.all([
        side.endings.conclude(run, [said('a')], end()),
        side.endings.conclude(run, [], afterLoss),
        side.endings.conclude(run, [], end({ status: 'cancelled' })),
        side.endings.conclude(run, [], (history) => afterDrain(history, OVERLOADED)),
      ]);
      expect(endings.filter((ended) => ended !== null)).toHaveLength(1);
    });

    it('cannot be judged by what is not known yet: a judge that throws leaves the run as it was', async () => {
      const run = await side.startedRun();
      const before = await side.find(run.processId);
      const failing = side.endings.conclude(run, [said('a')], () => {
        throw new Error('a bug');
      });
      await expect(failing).rejects.toThrow('a bug');
      expect(await side.find(run.processId)).toEqual(before);
      expect(await side.endings.conclude(run, [], end())).not.toBeNull();
    });
  });

  describe('running → pending', () => {
    it('by the reconciler: what never started goes back to its old place, and its log says nothing of it', async () => {
      const run = await side.run();
      const later = await side.submit();
      const before = await side.find(run.processId);
      expect(await side.endings.conclude(run, [], afterLoss)).toEqual({
        events: [],
        next: { id: run.processId, afterMs: 0 },
      });
      expect(await side.find(run.processId)).toMatchObject({
        status: 'pending',
        attempt: 1,
        crashCount: 0,
        lossCount: 1,
        owner: null,
        leaseUntil: null,
        retryAt: null,
        fairRank: before.fairRank,
        lastSeq: 2,
      });
      expect(await side.endings.conclude(run, [], end())).toBeNull();
      expect([(await side.claim()).id, (await side.claim()).id]).toEqual([run.processId, later]);
    });

    it('by a drain: what never started goes back, and no crash is counted', async () => {
      const run = await side.run();
      await side.endings.conclude(run, [], (history) => afterDrain(history, OVERLOADED));
      expect(await side.find(run.processId)).toMatchObject({ status: 'pending', attempt: 1, lossCount: 0 });
    });

    it('by a retry: the log says when, what was used is kept, and it is not claimed before', async () => {
      const run = await side.startedRun(RETRIES);
      const concluded = await side.endings.conclude(run, [said('a')], ending(OVERLOADED));
      const row = await side.find(run.processId);
      expect(row).toMatchObject({
        status: 'pending',
        attempt: 2,
        hasStarted: false,
        crashCount: 0,
        usage: OVERLOADED.usage,
        costUsd: OVERLOADED.costUsd,
        error: null,
        finishedAt: null,
        lastSeq: 5,
      });
      expect(concluded?.next).toEqual({ id: run.processId, afterMs: 1_000 });
      expect(concluded?.events.map(({ seq, type }) => [seq, type])).toEqual([
        [4, 'text'],
        [5, 'retrying'],
      ]);
      expect(concluded?.events.at(-1)).toMatchObject({
        attempt: 2,
        code: 'upstream_overloaded',
        retryAt: row.retryAt?.toISOString(),
      });
      await side.prolongRetryPause(run.processId);
      expect(await side.claims.claim('worker', 15_000)).toBeNull();
      await side.endRetryPause(run.processId);
      expect(await side.claim()).toMatchObject({ id: run.processId, attempt: 2, fence: 2, retryAt: null });
    });

    it('sums what all attempts have used', async () => {
      const first = await side.startedRun(RETRIES);
      await side.endings.conclude(first, [], ending(OVERLOADED));
      await side.endRetryPause(first.processId);
      const { id: processId, fence } = await side.claim();
      await side.endings.conclude({ processId, fence }, [], ending(COMPLETED));
      expect(await side.find(processId)).toMatchObject({
        status: 'completed',
        attempt: 2,
        usage: { inputTokens: 20, outputTokens: 10, cacheReadInputTokens: 4, cacheCreationInputTokens: 2 },
        costUsd: 0.5,
      });
    });

    it('counts what a run has used that nobody is left to tell of, each attempt once', async () => {
      const used = { type: 'usage' as const, ...COMPLETED.usage! };
      const doubled = {
        inputTokens: 20,
        outputTokens: 10,
        cacheReadInputTokens: 4,
        cacheCreationInputTokens: 2,
      };
      const first = await side.startedRun(RETRIES);
      const early = { ...used, inputTokens: 1 };
      await side.log.append([{ run: first, lastSeq: first.lastSeq, events: [early, used], facts: {} }]);
      await side.reconcile(first);
      const { id: processId, fence, lastSeq } = await side.claim();
      const second = { processId, fence };
      const started = { type: 'started' as const, engine: 'cli', model: null, attempt: 2 };
      await side.log.append([{ run: second, lastSeq, ...STARTED, events: [started] }]);
      expect(await side.find(processId)).toMatchObject({ usage: COMPLETED.usage });
      await side.endings.conclude(second, [used], afterLoss);
      const ended = await side.find(processId);
      expect(ended).toMatchObject({ status: 'failed', usage: doubled });
      // By the prices of Opus 5.5: 4, 20, 0.2 and 5 dollars for a million tokens.
      expect(ended.costUsd).toBeCloseTo((2 * (10 * 4 + 5 * 20 + 2 * 0.2 + 5)) / 1e6, 6);
    });

    it('uses up no attempt of its caller’s where it never started', async () => {
      const { processId: id, fence } = await side.run({ ...RETRIES, maxAttempts: 2 });
      await side.endings.conclude({ processId: id, fence }, [], (run) => afterDrain(run, OVERLOADED));
      await side.reconcile(await side.claim().then((row) => ({ processId: row.id, fence: row.fence })));
      const first = await side.claim();
      const { lastSeq } = first;
      await side.log.append([{ run: { processId: id, fence: first.fence }, lastSeq, ...STARTED }]);
      await side.endings.conclude({ processId: id, fence: first.fence }, [], ending(OVERLOADED));
      await side.endRetryPause(id);
      expect(await side.claim()).toMatchObject({ id, attempt: 2, fence: 5 });
    });

    it('ends where the attempts do', async () => {
      const first = await side.startedRun({ ...RETRIES, maxAttempts: 2 });
      await side.endings.conclude(first, [], ending(OVERLOADED));
      await side.endRetryPause(first.processId);
      const { id: processId, fence } = await side.claim();
      await side.endings.conclude({ processId, fence }, [], ending(OVERLOADED));
      expect(await side.find(processId)).toMatchObject({
        status: 'failed',
        attempt: 2,
        error: OVERLOADED.error,
      });
    });

    it('is not the reconciler’s to decide once the lease has been renewed, late as it was', async () => {
      const run = await side.startedRun();
      await side.expire(run.processId);
      const [lost] = await side.claims.findExpired(10);
      await side.leases.renew('worker', [run], LEASE_MS);
      expect(await side.endings.takeOver(lost!, afterLoss)).toBeNull();
      expect(await side.find(run.processId)).toMatchObject({ status: 'running', fence: run.fence });
    });

    it('ends with the second worker that was lost', async () => {
      const first = await side.startedRun(RETRIES);
      await side.endings.conclude(first, [], afterLoss);
      const { id: processId, fence, lastSeq } = await side.claim();
      await side.log.append([{ run: { processId, fence }, lastSeq, ...STARTED }]);
      await side.endings.conclude({ processId, fence }, [], afterLoss);
      expect(await side.find(processId)).toMatchObject({
        status: 'failed',
        error: { code: 'worker_lost', retryable: false },
      });
      expect(await side.eventTypes(processId)).toEqual([
        'created',
        'queued',
        'started',
        'retrying',
        'started',
        'failed',
      ]);
    });

    it('ends with the fifth worker that was lost before it had begun, for what asks for no second run too', async () => {
      const id = await side.submit();
      for (const lostBefore of [0, 1, 2, 3, 4]) {
        expect(await side.find(id)).toMatchObject({
          status: 'pending',
          attempt: 1,
          crashCount: 0,
          lossCount: lostBefore,
        });
        const { fence } = await side.claim();
        await side.reconcile({ processId: id, fence });
      }
      expect(await side.find(id)).toMatchObject({
        status: 'failed',
        error: { code: 'worker_lost', retryable: false },
      });
      expect(await side.eventTypes(id)).toEqual(['created', 'queued', 'failed']);
    });
  });

  describe('pending → cancelled, failed', () => {
    it('is at once when it is cancelled', async () => {
      const id = await side.submit();
      const cancelled = await side.endings.cancel(id, side.userId);
      const row = await side.find(id);
      expect(cancelled).toMatchObject({ kind: 'ended', events: [{ seq: 3, type: 'cancelled' }] });
      expect(row).toMatchObject({ status: 'cancelled', cancelRequestedAt: row.finishedAt, lastSeq: 3 });
      expect(await side.claims.claim('worker', 15_000)).toBeNull();
      expect(await side.endings.cancel(id, side.userId)).toEqual({ kind: 'too_late' });
    });

    it('is at once, too, for what is parked until its retry, and what it has used is told', async () => {
      const run = await side.startedRun(RETRIES);
      await side.endings.conclude(run, [], ending(OVERLOADED));
      expect(await side.endings.cancel(run.processId, side.userId)).toMatchObject({ kind: 'ended' });
      expect(await side.find(run.processId)).toMatchObject({
        status: 'cancelled',
        retryAt: null,
        usage: OVERLOADED.usage,
        costUsd: OVERLOADED.costUsd,
      });
    });

    it('comes of waiting too long for the first start, and of nothing else', async () => {
      const overdue = await side.submit({ queueTimeoutMs: 60_000 });
      const inTime = await side.submit({ queueTimeoutMs: 60_000 });
      const patient = await side.submit();
      expect(await side.endings.failOverdue(overdue, OVERLOADED)).toBeNull();
      await side.passQueueDeadline(overdue);
      expect(await side.claims.findOverdue(10)).toEqual([overdue]);
      expect(await side.endings.failOverdue(inTime, OVERLOADED)).toBeNull();
      expect(await side.endings.failOverdue(patient, OVERLOADED)).toBeNull();
      expect(await side.endings.failOverdue(overdue, OVERLOADED)).toMatchObject([{ seq: 3, type: 'failed' }]);
      expect(await side.endings.failOverdue(overdue, OVERLOADED)).toBeNull();
      expect(await side.claims.findOverdue(10)).toEqual([]);
      expect(await side.find(overdue)).toMatchObject({ status: 'failed', error: OVERLOADED.error });
    });

    it('does not come of waiting for a later start', async () => {
      const run = await side.startedRun({ ...RETRIES, queueTimeoutMs: 1_000 });
      await side.endings.conclude(run, [], ending(OVERLOADED));
      await side.passQueueDeadline(run.processId);
      await side.endRetryPause(run.processId);
      expect(await side.claims.findOverdue(10)).toEqual([]);
      expect(await side.endings.failOverdue(run.processId, OVERLOADED)).toBeNull();
      expect((await side.claim()).id).toBe(run.processId);
    });
  });

  describe('a cancel of what runs', () => {
    it('is a wish, written once: the first moment and one command', async () => {
      const run = await side.startedRun();
      expect(await side.endings.cancel(run.processId, side.userId)).toEqual({ kind: 'requested' });
      const { cancelRequestedAt, status } = await side.find(run.processId);
      expect([status, cancelRequestedAt]).toEqual(['running', expect.any(Date)]);
      const again = await Promise.all(
        Array.from({ length: 5 }, () => side.endings.cancel(run.processId, side.userId)),
      );
      expect(again).toEqual(Array.from({ length: 5 }, () => ({ kind: 'requested' })));
      expect(await side.find(run.processId)).toMatchObject({ cancelRequestedAt });
      expect(await side.prisma.processCommand.count()).toBe(1);
    });

    it.each<[string, (run: RunHistory) => Verdict]>([
      ['its worker is lost', afterLoss],
      ['its worker shuts down', (run) => afterDrain(run, OVERLOADED)],
    ])('wins when %s, whether it has started or not', async (_, judge) => {
      for (const run of [await side.startedRun(RETRIES), await side.run(RETRIES)]) {
        await side.endings.cancel(run.processId, side.userId);
        const concluded = await side.endings.conclude(run, [], judge);
        expect(concluded?.next).toBeNull();
        expect(await side.find(run.processId)).toMatchObject({ status: 'cancelled', error: null });
      }
    });

    it('keeps a failure from being retried', async () => {
      const run = await side.startedRun(RETRIES);
      await side.endings.cancel(run.processId, side.userId);
      expect(await side.endings.conclude(run, [], ending(OVERLOADED))).toMatchObject({ next: null });
    });

    it('of a process that is not there is too late', async () => {
      expect(await side.endings.cancel(uuid(), side.userId)).toEqual({ kind: 'too_late' });
    });
  });

  describe('two at once', () => {
    it('cancel, then completion: it is completed, and the wish stays noted', async () => {
      const run = await side.startedRun();
      const [cancelled, concluded] = await side.together(
        run.processId,
        () => side.endings.cancel(run.processId, side.userId),
        () => side.endings.conclude(run, [], ending(COMPLETED)),
      );
      expect(cancelled).toEqual({ kind: 'requested' });
      expect(concluded).not.toBeNull();
      const row = await side.find(run.processId);
      expect([row.status, row.cancelRequestedAt]).toEqual(['completed', expect.any(Date)]);
    });

    it('completion, then cancel: it is too late', async () => {
      const run = await side.startedRun();
      const [, cancelled] = await side.together(
        run.processId,
        () => side.endings.conclude(run, [], ending(COMPLETED)),
        () => side.endings.cancel(run.processId, side.userId),
      );
      expect(cancelled).toEqual({ kind: 'too_late' });
      expect(await side.find(run.processId)).toMatchObject({ status: 'completed', cancelRequestedAt: null });
    });

    it('cancel, then back to the queue: it is cancelled', async () => {
      const run = await side.run(RETRIES);
      const [cancelled, concluded] = await side.together(
        run.processId,
        () => side.endings.cancel(run.processId, side.userId),
        () => side.endings.conclude(run, [], afterLoss),
      );
      expect(cancelled).toEqual({ kind: 'requested' });
      expect(concluded).toMatchObject({ next: null, events: [{ type: 'cancelled' }] });
    });

    it('back to the queue, then cancel: it is cancelled where it waits', async () => {
      const run = await side.run(RETRIES);
      const [concluded, cancelled] = await side.together(
        run.processId,
        () => side.endings.conclude(run, [], afterLoss),
        () => side.endings.cancel(run.processId, side.userId),
      );
      expect(concluded).toMatchObject({ next: { id: run.processId } });
      expect(cancelled).toMatchObject({ kind: 'ended', events: [{ type: 'cancelled' }] });
    });

    it.each([
      ['the reconciler', 'its owner'],
      ['its owner', 'the reconciler'],
    ])('%s, then %s: the second finds nothing to do', async (first) => {
      const run = await side.startedRun();
      await side.expire(run.processId);
      const reconcile = () => side.endings.takeOver(run, afterLoss);
      const complete = () => side.endings.conclude(run, [said('a')], ending(COMPLETED));
      const [won, lost] = await side.together(
        run.processId,
        ...(first === 'its owner' ? ([complete, reconcile] as const) : ([reconcile, complete] as const)),
      );
      expect([won === null, lost]).toEqual([false, null]);
      expect((await side.find(run.processId)).status).toBe(first === 'its owner' ? 'completed' : 'failed');
    });

    it('the reconciler, then an append of its owner: the append is refused', async () => {
      const run = await side.startedRun();
      const [, appended] = await side.together(
        run.processId,
        () => side.endings.conclude(run, [], afterLoss),
        () => side.log.append([{ run, lastSeq: run.lastSeq, events: [said('late')], facts: {} }]),
      );
      expect(appended).toEqual(new Map());
      expect((await side.eventTypes(run.processId)).at(-1)).toBe('failed');
    });

    it('an append of the owner, then the reconciler: the ending comes after it', async () => {
      const run = await side.startedRun();
      await side.together(
        run.processId,
        () => side.log.append([{ run, lastSeq: run.lastSeq, events: [said('just in time')], facts: {} }]),
        () => side.endings.conclude(run, [], afterLoss),
      );
      expect((await side.eventTypes(run.processId)).slice(-2)).toEqual(['text', 'failed']);
    });

    it('two reconcilers that find it overdue: one of them fails it', async () => {
      const id = await side.submit({ queueTimeoutMs: 1_000 });
      await side.passQueueDeadline(id);
      const [won, lost] = await side.together(
        id,
        () => side.endings.failOverdue(id, OVERLOADED),
        () => side.endings.failOverdue(id, OVERLOADED),
      );
      expect([won?.length, lost]).toEqual([1, null]);
    });
  });

  it('of a run is not kept from others by a server that was cut off while it wrote it', async () => {
    const proxy = await startTcpProxy(side.stores.databaseUrl);
    const cutOff = side.by(proxy.url);
    // What asks for permission is ended under a lock.
    const run = await side.startedRun({ request: { permissionMode: 'ask' } });
    let hasLocked: () => void = () => undefined;
    const locked = new Promise<void>((resolve) => (hasLocked = resolve));
    const lost = cutOff.endings.conclude(run, [], (history) => {
      proxy.blackHole();
      hasLocked();
      return ending(COMPLETED)(history);
    });
    lost.catch(() => undefined); // nobody answers it, and at the end the connection is reset
    await locked;
    expect(await side.endings.conclude(run, [], afterLoss)).not.toBeNull();
    expect(await side.eventTypes(run.processId)).toEqual(['created', 'queued', 'started', 'failed']);
    await proxy.close();
    await cutOff.prisma.$disconnect();
  });

  it('that comes late, after another, is written no more', async () => {
    const proxy = await startTcpProxy(side.stores.databaseUrl);
    const cutOff = side.by(proxy.url);
    await cutOff.prisma.ping();
    const run = await side.startedRun();
    proxy.strandRequests({ to: /WITH process AS/, times: 1 });
    await expect(cutOff.endings.conclude(run, [], ending(COMPLETED))).rejects.toThrow();
    expect(await side.endings.conclude(run, [], afterLoss)).not.toBeNull();
    proxy.restore();
    while (proxy.swallowed === 0) await tick();
    expect(await side.find(run.processId)).toMatchObject({
      status: 'failed',
      error: { code: 'worker_lost' },
    });
    expect(await side.eventTypes(run.processId)).toEqual(['created', 'queued', 'started', 'failed']);
    await proxy.close();
    await cutOff.prisma.$disconnect();
  });
});
