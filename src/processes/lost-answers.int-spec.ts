import { Logger } from '@nestjs/common';
import fc from 'fast-check';
import type { ClaudeEngine } from '../../libs/claude-engine/index.js';
import { findBrokenInvariants } from '../../test/support/invariants.js';
import { v7 as uuid } from 'uuid';
import { losingAnswers, onceEach } from '../../test/support/lost-answers.js';
import { LEASE_MS, WriteSide } from '../../test/support/write-side.js';
import { readConfig, requireStores } from '../platform/config/config.js';
import { EventAppender } from './event-appender.js';
import { LeaseKeeper } from './lease-keeper.js';
import { LeaseReconciler } from './lease-reconciler.js';
import type { ProcessChannel } from './process-channel.js';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';
import type { Run } from './process-log.repository.js';
import type { Outcome } from './process-outcome.js';
import type { ProcessesQueue } from './processes.queue.js';
import type { ProcessRunner } from './process-runner.js';
import { ProcessWorker } from './process-worker.js';
import { RunLost } from './run-log.js';
import { RunInbox } from './run-inbox.js';
import { afterEnding, afterLoss, type RunHistory } from './run-verdict.js';
import { StrayRuns } from './stray-runs.js';

const COMPLETED: Outcome = { status: 'completed', result: 'Done.' };
const OVERLOADED: Outcome = {
  status: 'failed',
  error: { code: 'upstream_overloaded', detail: 'Overloaded.', retryable: true, retryAfterMs: null },
  costUsd: 0.25,
};
const RETRIES = { maxAttempts: 2, retryOn: ['upstream_overloaded'] };

const ending = (outcome: Outcome) => (run: RunHistory) => afterEnding(run, outcome);
const said = (text: string): NewProcessEvent => ({ type: 'message', messageId: 'm', turn: 1, text });

/** The write is done, and whoever asked for it is told that the connection broke: nothing is doubled, nothing is lost. */
describe('a write whose answer is lost', () => {
  let side: WriteSide;

  beforeAll(async () => {
    Logger.overrideLogger(false);
    side = await WriteSide.open();
  });
  afterAll(() => side.close());
  beforeEach(() => side.clear());
  afterEach(async () => {
    const broken = await findBrokenInvariants(side.stores.query);
    if (broken.length > 0) throw new Error(JSON.stringify(broken));
  });

  /** The log of a run, on the writer's side. */
  const open = (run: Run & { lastSeq: number }, isLost: (method: string) => boolean) => {
    const published: ProcessEvent[] = [];
    const appender = new EventAppender(losingAnswers(side.log, isLost), losingAnswers(side.endings, isLost), {
      publishEvents: (_id: string, events: ProcessEvent[]) => void published.push(...events),
    } as unknown as ProcessChannel);
    const [onCancelRequested, onLost] = [jest.fn(), jest.fn()];
    return { log: appender.open(run, { onCancelRequested, onLost }), published, onCancelRequested, onLost };
  };
  const texts = async (id: string) =>
    (await side.events(id)).slice(2).map((event) => ('text' in event ? event.text : event.type));

  it('an append: the events are in the log once, and are told once', async () => {
    const run = await side.run();
    const { log, published, onLost } = open(run, onceEach('append', 'findRuns', 'read'));
    for (const text of ['a', 'b', 'c']) await log.append(said(text));
    await log.settled();
    await log.append(said('d'));
    await log.settled();
    expect(await texts(run.processId)).toEqual(['a', 'b', 'c', 'd']);
    expect(published).toEqual((await side.events(run.processId)).slice(2));
    expect(onLost).not.toHaveBeenCalled();
  });

  it('the note that a run begins: it begins', async () => {
    const run = await side.run();
    await open(run, onceEach('begin')).log.begin();
    expect(await side.find(run.processId)).toMatchObject({ hasStarted: true });
  });

  it('an ending: it is written once, and told', async () => {
    const run = await side.startedRun();
    const { log, published } = open(run, onceEach('conclude', 'findRuns', 'read'));
    await log.append(said('a'));
    expect(await log.conclude(ending(COMPLETED))).toMatchObject({
      events: [{ type: 'completed' }],
      next: null,
    });
    expect(await texts(run.processId)).toEqual(['started', 'a', 'completed']);
    expect(published.map(({ type }) => type)).toEqual(['message', 'completed']);
  });

  it('a return to the queue: there is one more attempt, what was used counts once, and a sweep finds it', async () => {
    const run = await side.startedRun(RETRIES);
    const { log } = open(run, onceEach('conclude'));
    await log.conclude(ending(OVERLOADED));
    await side.endRetryPause(run.processId);
    expect(await side.find(run.processId)).toMatchObject({ status: 'pending', attempt: 2, costUsd: 0.25 });
    expect(await texts(run.processId)).toEqual(['started', 'retrying']);
    expect(await side.claims.findEligible(10)).toEqual([{ id: run.processId }]);
  });

  it('an ending that the reconciler came before: its own stays', async () => {
    const run = await side.startedRun();
    const { log, published } = open(run, onceEach('conclude'));
    await side.reconcile(run);
    await expect(log.conclude(ending(COMPLETED))).rejects.toThrow(RunLost);
    expect(await texts(run.processId)).toEqual(['started', 'failed']);
    expect(published).toEqual([]);
  });

  it('an ending, and the reconciler came between its two tries: it is not taken for its own', async () => {
    const run = await side.startedRun();
    let tries = 0;
    const endings = Object.create(side.endings, {
      conclude: {
        value: async (...given: Parameters<typeof side.endings.conclude>) => {
          if (++tries > 1) return side.endings.conclude(...given);
          await side.reconcile(run);
          throw Object.assign(new Error('Connection terminated'), { code: 'ECONNRESET' });
        },
      },
    }) as typeof side.endings;
    const told: ProcessEvent[] = [];
    const channel = { publishEvents: (_id: string, events: ProcessEvent[]) => void told.push(...events) };
    const appender = new EventAppender(side.log, endings, channel as unknown as ProcessChannel);
    const log = appender.open(run, { onCancelRequested: jest.fn(), onLost: jest.fn() });
    await expect(log.conclude(ending(COMPLETED))).rejects.toThrow(RunLost);
    expect([tries, told]).toEqual([2, []]);
  });

  it('a claim: nobody claims it again while its lease holds, and after that it runs', async () => {
    const id = await side.submit();
    await expect(losingAnswers(side.claims, onceEach('claim')).claim('worker', LEASE_MS)).rejects.toThrow();
    expect(await side.claims.claim('another', LEASE_MS)).toBeNull();
    await side.expire(id);
    const [run] = await side.claims.findExpired(10);
    await side.endings.takeOver(run!, afterLoss);
    expect(await side.claims.claim('another', LEASE_MS)).toMatchObject({ id, attempt: 1, fence: 3 });
  });

  it('a cancel: the same again is the same', async () => {
    const waiting = await side.submit();
    const cancel = (id: string) => losingAnswers(side.endings, onceEach('cancel')).cancel(id, side.userId);
    await expect(cancel(waiting)).rejects.toThrow();
    expect(await side.endings.cancel(waiting, side.userId)).toEqual({ kind: 'too_late' });
    expect(await texts(waiting)).toEqual(['cancelled']);

    const run = await side.startedRun();
    await expect(cancel(run.processId)).rejects.toThrow();
    expect(await side.endings.cancel(run.processId, side.userId)).toEqual({ kind: 'requested' });
    expect(await side.prisma.processCommand.count()).toBe(1);
  });

  it('a submit under a name: the same again finds it', async () => {
    const named = { key: 'once', requestHash: new Uint8Array(32), keptMs: 60_000 };
    const submit = (submissions: WriteSide['submissions'], id: string) =>
      submissions.submit({
        process: { ...side.newProcess(), id },
        named,
        limits: { maxPending: 10, maxPendingPerUser: 10 },
      });
    const ids = [side.newProcess().id, side.newProcess().id] as const;
    await expect(submit(losingAnswers(side.submissions, onceEach('submit')), ids[0])).rejects.toThrow();
    expect(await submit(side.submissions, ids[1])).toEqual({ kind: 'joined', processId: ids[0] });
    expect(await side.prisma.process.count()).toBe(1);
  });

  describe('of those that are repeated by themselves', () => {
    const config = requireStores(
      readConfig({
        DATABASE_URL: 'postgresql://nowhere',
        REDIS_URL: 'redis://nowhere',
        LEASE_HEARTBEAT_MS: '50',
        RECONCILER_INTERVAL_MS: '50',
      }),
    );
    const stop: (() => void)[] = [];
    afterEach(() => {
      for (const each of stop.splice(0)) each();
    });

    const keepLeases = (isLost: (method: string) => boolean) => {
      const keeper = new LeaseKeeper(
        config,
        { heartbeat: () => undefined } as unknown as ClaudeEngine,
        losingAnswers(side.leases, isLost),
        losingAnswers(side.commands, isLost),
        { subscribeCommands: () => Promise.resolve() } as unknown as ProcessChannel,
      );
      keeper.onApplicationBootstrap();
      stop.push(() => keeper.stop());
      return keeper;
    };
    const reconcile = (isLost: (method: string) => boolean) => {
      const told: ProcessEvent[] = [];
      const reconciler = new LeaseReconciler(
        config,
        losingAnswers(side.claims, isLost),
        losingAnswers(side.endings, isLost),
        { sweep: () => Promise.resolve() } as unknown as ProcessesQueue,
        {
          publishEvents: (_id: string, events: ProcessEvent[]) => void told.push(...events),
        } as unknown as ProcessChannel,
      );
      reconciler.onApplicationBootstrap();
      stop.push(() => reconciler.onApplicationShutdown());
      return told;
    };

    it('a claim: its worker gives it back at once, and nobody is suspected', async () => {
      const id = await side.submit();
      const claims = losingAnswers(side.claims, onceEach('claim'));
      let isGivenBack: (next: unknown) => void = () => undefined;
      const givenBack = new Promise<unknown>((resolve) => (isGivenBack = resolve));
      const worker = new ProcessWorker(
        config,
        claims,
        { assureGuard: () => Promise.resolve() } as unknown as LeaseKeeper,
        {} as EventAppender,
        {} as ProcessRunner,
      );
      const strays = new StrayRuns(
        config,
        worker,
        claims,
        side.endings,
        { dispatch: async (next: unknown) => isGivenBack(await next) } as unknown as ProcessesQueue,
        { publishEvents: () => undefined } as unknown as ProcessChannel,
      );
      strays.onApplicationBootstrap();
      stop.push(() => void strays.stop());
      await expect(worker.runNext()).rejects.toThrow('Connection terminated');
      expect(await givenBack).toMatchObject([{ id }]);
      expect(await side.find(id)).toMatchObject({ status: 'pending', attempt: 1, lossCount: 0 });
    });

    it('the renewal of a lease: it holds, and the run goes on', async () => {
      const run = await side.run();
      const { log, onLost } = open(run, () => false);
      let renewals = 0;
      const renewed = new Promise<void>((resolve) => {
        const isLost = onceEach('renew');
        const keeper = keepLeases((method) => {
          if (method === 'renew' && ++renewals === 3) resolve();
          return isLost(method);
        });
        const [controller, killer] = [new AbortController(), new AbortController()];
        keeper.hold('worker', { ...run, log, controller, killer, inbox: new RunInbox() }, performance.now());
      });
      const before = (await side.find(run.processId)).leaseUntil!;
      await renewed;
      expect((await side.find(run.processId)).leaseUntil!.getTime()).toBeGreaterThan(before.getTime());
      expect(onLost).not.toHaveBeenCalled();
    });

    it('the look into an inbox, and the note of what was delivered: each command comes, once', async () => {
      const run = await side.run();
      const data = { id: uuid(), processId: run.processId, kind: 'wish', userId: side.userId };
      await side.prisma.processCommand.create({ data });
      const { log } = open(run, () => false);
      const delivered: string[] = [];
      const inbox = new RunInbox().on('wish', ({ id }) => delivered.push(id) > 0);
      const isReadAgain = new Promise<void>((resolve) => {
        const isLost = onceEach('read', 'mark');
        let looks = 0;
        const keeper = keepLeases((method) => {
          if (method === 'read' && ++looks === 4) resolve();
          return isLost(method);
        });
        const [controller, killer] = [new AbortController(), new AbortController()];
        keeper.hold('worker', { ...run, log, controller, killer, inbox }, performance.now());
      });
      await isReadAgain;
      expect(delivered).toEqual([data.id]);
      expect(await side.prisma.processCommand.count({ where: { handledAt: null } })).toBe(0);
    });

    it('the recovery of what a worker left, and the end of what is late: each once', async () => {
      const lost = await side.startedRun();
      const late = await side.submit({ queueTimeoutMs: 1_000 });
      await side.passQueueDeadline(late);
      await side.expire(lost.processId);
      let isMended: () => void = () => undefined;
      const mended = new Promise<void>((resolve) => (isMended = resolve));
      const isLost = onceEach('takeOver', 'failOverdue');
      let looks = 0;
      reconcile((method) => {
        if (method === 'findOverdue' && ++looks === 3) isMended();
        return isLost(method);
      });
      await mended;
      expect(await texts(lost.processId)).toEqual(['started', 'failed']);
      expect(await texts(late)).toEqual(['failed']);
    });
  });

  it('whichever they are: runs that are written together are whole, in order, told and ended once', async () => {
    const losses = fc.array(fc.boolean(), { maxLength: 12 });
    const counts = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(losses, counts, async (lost, lengths) => {
        await side.clear();
        const left = [...lost];
        const published: ProcessEvent[] = [];
        const appender = new EventAppender(
          losingAnswers(side.log, () => left.shift() ?? false),
          losingAnswers(side.endings, () => left.shift() ?? false),
          {
            publishEvents: (_id: string, events: ProcessEvent[]) => void published.push(...events),
          } as unknown as ProcessChannel,
        );
        const runs = [];
        for (const length of lengths) runs.push({ length, run: await side.run() });
        await Promise.all(
          runs.map(async ({ length, run }) => {
            const log = appender.open(run, { onCancelRequested: jest.fn(), onLost: jest.fn() });
            for (let n = 0; n < length; n += 1) {
              await log.append(said(String(n)));
              if (n % 2 === 0) await log.settled();
            }
            await log.conclude(ending(COMPLETED));
          }),
        );
        for (const { length, run } of runs) {
          const expected = Array.from({ length }, (_, n) => String(n));
          expect(await texts(run.processId)).toEqual([...expected, 'completed']);
          expect(published.filter(({ processId }) => processId === run.processId)).toEqual(
            (await side.events(run.processId)).slice(2),
          );
        }
      }),
      { numRuns: 10 },
    );
  });
});
