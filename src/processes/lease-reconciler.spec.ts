import { Logger } from '@nestjs/common';
import { readConfig, requireStores } from '../platform/config/config.js';
import { LeaseReconciler } from './lease-reconciler.js';
import type { ProcessChannel } from './process-channel.js';
import type { ProcessClaimsRepository } from './process-claims.repository.js';
import type { ProcessEndingsRepository } from './process-endings.repository.js';
import type { Run } from './process-log.repository.js';
import type { ProcessesQueue } from './processes.queue.js';

const TTL_MS = 15_000;
const INTERVAL_MS = 2_000;

const outage = () => Object.assign(new Error('Connection refused'), { code: 'ECONNREFUSED' });

/** What a crash has left in the database, and what is made of it. */
class Bench {
  expired: string[] = [];
  overdue: string[] = [];
  eligible: string[] = [];
  isDatabaseAway = false;
  /** These cannot be mended. */
  readonly broken = new Set<string>();
  readonly mended: string[] = [];
  readonly published: string[] = [];
  readonly swept: string[][] = [];

  readonly reconciler = new LeaseReconciler(
    requireStores(
      readConfig({
        DATABASE_URL: 'postgresql://nowhere',
        REDIS_URL: 'redis://nowhere',
        LEASE_TTL_MS: String(TTL_MS),
        RECONCILER_INTERVAL_MS: String(INTERVAL_MS),
      }),
    ),
    {
      findExpired: () => this.answer(() => this.expired.map((processId) => ({ processId, fence: 1 }))),
      findOverdue: () => this.answer(() => this.overdue),
      findEligible: () => this.answer(() => this.eligible.map((id) => ({ id }))),
    } as unknown as ProcessClaimsRepository,
    {
      takeOver: ({ processId }: Run) => this.answer(() => this.mend('expired', processId)),
      failOverdue: (id: string) => this.answer(() => this.mend('overdue', id)?.events),
    } as unknown as ProcessEndingsRepository,
    {
      sweep: (eligible: { id: string }[]) => Promise.resolve(this.swept.push(eligible.map(({ id }) => id))),
    } as unknown as ProcessesQueue,
    { publishEvents: (id: string) => void this.published.push(id) } as unknown as ProcessChannel,
  );

  private mend(list: 'expired' | 'overdue', id: string) {
    if (this.broken.has(id)) throw new Error('a bug');
    if (!this[list].includes(id)) return null;
    this[list] = this[list].filter((other) => other !== id);
    this.mended.push(id);
    return { events: [], next: null };
  }

  private async answer<T>(act: () => T): Promise<T> {
    await Promise.resolve();
    if (this.isDatabaseAway) throw outage();
    return act();
  }
}

describe('the reconciler', () => {
  let bench: Bench;

  beforeAll(() => {
    Logger.overrideLogger(false);
  });
  beforeEach(() => {
    jest.useFakeTimers({ doNotFake: ['setImmediate', 'queueMicrotask', 'nextTick'] });
    bench = new Bench();
    bench.reconciler.onApplicationBootstrap();
  });
  afterEach(() => {
    bench.reconciler.onApplicationShutdown();
    jest.useRealTimers();
  });

  const pass = (ms: number) => jest.advanceTimersByTimeAsync(ms);

  it('mends with every tick what crashes have left, tells readers, and wakes slots for what may run', async () => {
    bench.expired = ['lost', 'lost too'];
    bench.overdue = ['late'];
    bench.eligible = ['next'];
    await pass(INTERVAL_MS);
    expect(bench.mended).toEqual(['lost', 'lost too', 'late']);
    expect(bench.published).toEqual(bench.mended);
    expect(bench.swept).toEqual([['next']]);
    bench.expired = ['another'];
    await pass(INTERVAL_MS);
    expect(bench.mended.at(-1)).toBe('another');
  });

  it('judges nobody before the time of a lease has passed since it was cut off itself, and fails what is late', async () => {
    bench.isDatabaseAway = true;
    await pass(10 * INTERVAL_MS);
    bench.isDatabaseAway = false;
    [bench.expired, bench.overdue] = [['cut off as well'], ['late']];
    await pass(INTERVAL_MS);
    expect(bench.mended).toEqual(['late']);
    await pass(TTL_MS - INTERVAL_MS);
    expect(bench.mended).toEqual(['late']);
    await pass(2 * INTERVAL_MS);
    expect(bench.mended).toEqual(['late', 'cut off as well']);
  });

  it('is not kept from it by failures that leases outlive, however many come', async () => {
    for (let n = 0; n < 20; n += 1) {
      bench.isDatabaseAway = true;
      await pass(INTERVAL_MS);
      bench.isDatabaseAway = false;
      bench.expired = [`lost ${n}`];
      await pass(INTERVAL_MS);
      expect(bench.mended.at(-1)).toBe(`lost ${n}`);
    }
  });

  it('does not let one process that cannot be mended keep the others waiting', async () => {
    [bench.expired, bench.overdue, bench.eligible] = [['broken', 'lost'], ['broken', 'late'], ['next']];
    bench.broken.add('broken');
    await pass(INTERVAL_MS);
    expect([bench.mended, bench.swept]).toEqual([['lost', 'late'], [['next']]]);
    bench.expired.push('lost later');
    await pass(INTERVAL_MS);
    expect(bench.mended.at(-1)).toBe('lost later');
  });

  it('is still when the server has stopped', async () => {
    bench.reconciler.onApplicationShutdown();
    bench.expired = ['lost'];
    await pass(10 * INTERVAL_MS);
    expect(bench.mended).toEqual([]);
  });
});
