import { Logger } from '@nestjs/common';
import { type ClaudeEngine, RunAbort } from '../../libs/claude-engine/index.js';
import { FakeLog, type FakeProcess } from '../../test/support/fake-log.js';
import { readConfig, requireStores } from '../platform/config/config.js';
import { EventAppender } from './event-appender.js';
import { LeaseKeeper, type LiveRun } from './lease-keeper.js';
import type { ProcessChannel } from './process-channel.js';
import type { ProcessCommand, ProcessCommandsRepository } from './process-commands.repository.js';
import type { ProcessLeasesRepository, RenewedLease } from './process-leases.repository.js';
import type { Run } from './process-log.repository.js';
import { RunInbox } from './run-inbox.js';

const TTL_MS = 15_000;
const HEARTBEAT_MS = 5_000;
const FENCE_MS = 10_000;
/** The fence is looked at so often. */
const WATCH_MS = 250;
const OWNER = 'worker';

/** A worker's leases, before a database that answers, refuses or says nothing. */
class Bench {
  readonly log = new FakeLog();
  /** What becomes of a question to the database. */
  database: 'answers' | 'refuses' | 'says nothing' = 'answers';
  inbox: ProcessCommand[] = [];
  isInboxSilent = false;
  readonly renewals: string[][] = [];
  guardWasFed = 0;
  private nudge: (processId: string) => void = () => undefined;
  private readonly appender = new EventAppender(this.log.repository, this.log.endings, this.log.channel);

  readonly keeper = new LeaseKeeper(
    requireStores(
      readConfig({
        DATABASE_URL: 'postgresql://nowhere',
        REDIS_URL: 'redis://nowhere',
        LEASE_TTL_MS: String(TTL_MS),
        LEASE_HEARTBEAT_MS: String(HEARTBEAT_MS),
        LEASE_FENCE_MS: String(FENCE_MS),
      }),
    ),
    { heartbeat: () => void (this.guardWasFed += 1) } as unknown as ClaudeEngine,
    { renew: (_owner: string, runs: Run[]) => this.renew(runs) } as unknown as ProcessLeasesRepository,
    {
      read: (_owner: string, runs: Run[]) => this.read(runs),
      mark: (_run: Run, ids: string[]) => this.mark(ids),
    } as unknown as ProcessCommandsRepository,
    {
      subscribeCommands: (listener: (processId: string) => void) => {
        this.nudge = listener;
        return Promise.resolve();
      },
    } as unknown as ProcessChannel,
  );

  /** A run that was claimed now, unless told. */
  hold(id = 'a', claimSentAt = performance.now()): LiveRun & { process: FakeProcess } {
    const process = this.log.process(id);
    const controller = new AbortController();
    const log = this.appender.open(process.run, { onCancelRequested: jest.fn(), onLost: jest.fn() });
    const inbox = new RunInbox().on('cancel', () => {
      controller.abort(new RunAbort('cancelled'));
      return true;
    });
    const killer = new AbortController();
    const run = { processId: id, fence: process.fence, log, controller, killer, inbox };
    this.keeper.hold(OWNER, run, claimSentAt);
    return { ...run, process };
  }

  /** Puts a command into an inbox, and hints at it unless the hint gets lost. */
  command(processId: string, kind: string, { isNudged }: { isNudged: boolean }): void {
    const id = String(this.inbox.length);
    this.inbox.push({ id, processId, kind, payload: {}, userId: 'u', permissionId: null });
    if (isNudged) this.nudge(processId);
  }

  private async renew(runs: Run[]): Promise<RenewedLease[]> {
    this.renewals.push(runs.map(({ processId }) => processId));
    if (this.database === 'says nothing') return new Promise(() => undefined);
    if (this.database === 'refuses')
      throw Object.assign(new Error('Connection refused'), { code: 'ECONNREFUSED' });
    return Promise.resolve(
      runs.flatMap(({ processId }) => {
        const process = this.log.process(processId);
        if (process.status !== 'running') return [];
        return [{ processId, fence: process.fence, cancelRequested: process.isCancelRequested }];
      }),
    );
  }

  private async read(runs: Run[]): Promise<ProcessCommand[]> {
    if (this.isInboxSilent) return new Promise(() => undefined);
    const ids = runs.map(({ processId }) => processId);
    return Promise.resolve(this.inbox.filter(({ processId }) => ids.includes(processId)));
  }

  private async mark(ids: string[]): Promise<void> {
    this.inbox = this.inbox.filter(({ id }) => !ids.includes(id));
    return Promise.resolve();
  }
}

describe('the keeper of leases', () => {
  let bench: Bench;

  beforeAll(() => {
    Logger.overrideLogger(false);
  });
  beforeEach(async () => {
    jest.useFakeTimers({ doNotFake: ['setImmediate', 'queueMicrotask', 'nextTick'] });
    bench = new Bench();
    bench.keeper.onApplicationBootstrap();
    await pass(0);
  });
  afterEach(() => {
    bench.keeper.stop();
    jest.useRealTimers();
  });

  const pass = (ms: number) => jest.advanceTimersByTimeAsync(ms);
  const reasonOf = ({ controller: { signal } }: LiveRun) =>
    signal.aborted ? (signal.reason as { kind: string }).kind : null;

  describe('renews', () => {
    it('what runs, all together, with every heartbeat, for as long as it runs', async () => {
      const [a, b] = [bench.hold('a'), bench.hold('b')];
      await pass(2 * HEARTBEAT_MS);
      expect(bench.renewals).toEqual([
        ['a', 'b'],
        ['a', 'b'],
      ]);
      bench.keeper.release(a);
      await pass(HEARTBEAT_MS);
      expect(bench.renewals.at(-1)).toEqual(['b']);
      expect([a.log.isLost, b.log.isLost]).toEqual([false, false]);
      bench.keeper.release(b);
      await pass(10 * HEARTBEAT_MS);
      expect(bench.renewals).toHaveLength(3);
    });

    it('nothing that is lost or has ended', async () => {
      const [lost, ended] = [bench.hold('lost'), bench.hold('ended')];
      lost.log.lose();
      await ended.log.conclude(() => ({ kind: 'end', outcome: { status: 'completed' } }));
      await pass(HEARTBEAT_MS);
      expect(bench.renewals).toEqual([]);
    });

    it('what is being concluded, however long the database takes for that', async () => {
      const run = bench.hold();
      const release = bench.log.hold();
      const concluding = run.log.conclude(() => ({ kind: 'end', outcome: { status: 'completed' } }));
      await pass(3 * TTL_MS);
      expect(run.log.isLost).toBe(false);
      release();
      expect(await concluding).toMatchObject({ events: [{ type: 'completed' }] });
    });

    it('the next attempt of a process while the run before it is still on its way out', async () => {
      const before = bench.hold();
      before.process.fence += 1;
      const next = bench.hold();
      bench.keeper.release(before);
      await pass(HEARTBEAT_MS);
      expect(bench.renewals).toEqual([['a']]);
      bench.database = 'says nothing';
      await pass(FENCE_MS + WATCH_MS);
      expect(next.log.isLost).toBe(true);
    });
  });

  describe('has the guard hear, before more is claimed,', () => {
    it('that the database is back, as soon as it is', async () => {
      bench.hold();
      bench.database = 'refuses';
      await pass(HEARTBEAT_MS);
      const heard = bench.guardWasFed;
      await expect(bench.keeper.assureGuard()).rejects.toThrow('does not answer');
      expect(bench.guardWasFed).toBe(heard);
      bench.database = 'answers';
      await bench.keeper.assureGuard();
      expect(bench.guardWasFed).toBe(heard + 1);
    });

    it('nothing that it knows', async () => {
      bench.hold();
      await pass(HEARTBEAT_MS);
      const heard = bench.guardWasFed;
      await bench.keeper.assureGuard();
      expect([bench.guardWasFed, bench.renewals]).toEqual([heard, [['a']]]);
    });
  });

  describe('gives up', () => {
    it('what is another’s by now, and nothing else', async () => {
      const [taken, ended, kept] = [bench.hold('taken'), bench.hold('ended'), bench.hold('kept')];
      taken.process.fence += 1;
      ended.process.giveUp();
      await pass(HEARTBEAT_MS);
      expect([taken, ended, kept].map(({ log }) => log.isLost)).toEqual([true, true, false]);
    });

    it.each(['refuses', 'says nothing'] as const)(
      'what cannot be proven, at LEASE_FENCE_MS after the last renewal was sent: the database %s',
      async (database) => {
        const run = bench.hold();
        await pass(HEARTBEAT_MS);
        bench.database = database;
        await pass(FENCE_MS - 2 * WATCH_MS);
        expect(run.log.isLost).toBe(false);
        await pass(3 * WATCH_MS);
        expect(run.log.isLost).toBe(true);
      },
    );

    it('at the first look of whoever acts for it, what was stopped for too long', async () => {
      const [stopped, other] = [bench.hold('stopped', performance.now() - FENCE_MS), bench.hold('other')];
      expect([bench.keeper.isHeld(stopped), bench.keeper.isHeld(other)]).toEqual([false, true]);
      expect([stopped.log.isLost, other.log.isLost]).toEqual([true, false]);
      other.process.fence += 1;
      expect(bench.keeper.isHeld({ ...other, fence: other.process.fence })).toBe(false);
      await pass(HEARTBEAT_MS);
      expect(bench.keeper.isHeld(other)).toBe(false);
    });

    it('a run whose claim was answered late, counted from when it was sent', async () => {
      const run = bench.hold('a', performance.now() - 8_000);
      bench.database = 'refuses';
      await pass(FENCE_MS - 8_000 - WATCH_MS);
      expect(run.log.isLost).toBe(false);
      await pass(2 * WATCH_MS);
      expect(run.log.isLost).toBe(true);
      expect(bench.keeper.isProven(performance.now() - FENCE_MS)).toBe(false);
      expect(bench.keeper.isProven(performance.now() - FENCE_MS + 1)).toBe(true);
    });

    it('nothing in an outage that is over in time, of however many heartbeats', async () => {
      const run = bench.hold();
      for (let outage = 0; outage < 3; outage += 1) {
        bench.database = outage % 2 === 0 ? 'says nothing' : 'refuses';
        await pass(FENCE_MS - HEARTBEAT_MS - 1_000);
        bench.database = 'answers';
        await pass(HEARTBEAT_MS);
      }
      expect(run.log.isLost).toBe(false);
    });

    it('nothing that has ended and is only on its way out', async () => {
      const run = bench.hold();
      await run.log.conclude(() => ({ kind: 'end', outcome: { status: 'completed' } }));
      bench.database = 'says nothing';
      await pass(TTL_MS);
      expect(run.log.isLost).toBe(false);
    });

    it('by the monotonic clock: that of the wall may be set', async () => {
      const run = bench.hold();
      jest.setSystemTime(Date.now() + 24 * 60 * 60 * 1_000);
      await pass(2 * HEARTBEAT_MS);
      expect(run.log.isLost).toBe(false);
      jest.setSystemTime(0);
      bench.database = 'refuses';
      await pass(FENCE_MS + WATCH_MS);
      expect(run.log.isLost).toBe(true);
    });
  });

  describe('brings commands', () => {
    it('at once when it is told of them', async () => {
      const run = bench.hold();
      bench.command('a', 'cancel', { isNudged: true });
      await pass(0);
      expect([reasonOf(run), bench.inbox]).toEqual(['cancelled', []]);
    });

    it('with the next heartbeat when the hint got lost', async () => {
      const [run, other] = [bench.hold('a'), bench.hold('b')];
      bench.command('a', 'cancel', { isNudged: false });
      await pass(HEARTBEAT_MS);
      expect([reasonOf(run), reasonOf(other)]).toEqual(['cancelled', null]);
    });

    it('of a cancel also when whoever emptied the inbox never got the answer', async () => {
      const run = bench.hold();
      run.process.isCancelRequested = true;
      await pass(HEARTBEAT_MS);
      expect(reasonOf(run)).toBe('cancelled');
    });

    it('to its own runs alone, and leaves what it does not know where it is', async () => {
      const run = bench.hold();
      bench.command('another', 'cancel', { isNudged: true });
      bench.command('a', 'dance', { isNudged: true });
      await pass(0);
      const left = bench.inbox.map(({ processId, kind }) => [processId, kind]);
      expect([reasonOf(run), left]).toEqual([
        null,
        [
          ['another', 'cancel'],
          ['a', 'dance'],
        ],
      ]);
    });

    it('without waiting for an inbox that does not answer: the heart beats on', async () => {
      const run = bench.hold();
      bench.isInboxSilent = true;
      await pass(3 * TTL_MS);
      expect([run.log.isLost, bench.renewals.length]).toEqual([false, (3 * TTL_MS) / HEARTBEAT_MS]);
    });
  });

  describe('feeds the guard', () => {
    it('from the start on, and while nothing runs', async () => {
      expect(bench.guardWasFed).toBe(1);
      await pass(2 * HEARTBEAT_MS);
      expect(bench.guardWasFed).toBe(3);
    });

    it('with each renewal that was answered', async () => {
      bench.hold();
      await pass(3 * HEARTBEAT_MS);
      expect([bench.guardWasFed, bench.renewals.length]).toEqual([4, 3]);
    });

    it.each(['refuses', 'says nothing'] as const)(
      'not while nothing is proven: the database %s',
      async (database) => {
        bench.hold();
        await pass(HEARTBEAT_MS);
        bench.database = database;
        const before = bench.guardWasFed;
        await pass(FENCE_MS - 2 * WATCH_MS);
        expect(bench.guardWasFed).toBe(before);
        bench.database = 'answers';
        await pass(HEARTBEAT_MS);
        expect(bench.guardWasFed).toBeGreaterThan(before);
      },
    );
  });

  it('is still when it is stopped', async () => {
    const run = bench.hold();
    bench.keeper.stop();
    await pass(3 * TTL_MS);
    expect([bench.renewals, run.log.isLost]).toEqual([[], false]);
  });
});
