import pg from 'pg';
import { LEASE_MS, WriteSide } from '../../test/support/write-side.js';
import { afterLoss } from './run-verdict.js';

describe('claiming', () => {
  let side: WriteSide;

  beforeAll(async () => {
    side = await WriteSide.open();
  });
  afterAll(() => side.close());
  beforeEach(() => side.clear());

  const claim = (owner = 'worker') => side.claims.claim(owner, LEASE_MS);
  const claimAtOnce = async (count: number) =>
    (await Promise.all(Array.from({ length: count }, () => claim()))).flatMap((row) => row ?? []);
  /** As many processes as told, of one session. */
  const submitToOneSession = async (count: number) => {
    const ids = [];
    for (let n = 0; n < count; n += 1) ids.push(await side.submit());
    const { sessionId } = await side.find(ids[0]!);
    await side.stores.query('UPDATE processes SET session_id = $1', [sessionId]);
    return ids;
  };

  it('gives a process to a worker for the time of a lease, with a fence of its own', async () => {
    const id = await side.submit();
    const before = Date.now();
    expect(await claim('me')).toMatchObject({ id, status: 'running', owner: 'me', fence: 1, attempt: 1 });
    const { leaseUntil } = await side.find(id);
    expect(leaseUntil!.getTime() - before).toBeGreaterThanOrEqual(LEASE_MS - 1);
    expect(leaseUntil!.getTime() - Date.now()).toBeLessThanOrEqual(LEASE_MS);
    expect(await side.eventTypes(id)).toEqual(['created', 'queued']);
  });

  it('takes the next first, each once, however many claim at once', async () => {
    const submitted = [await side.submit(), await side.submit(), await side.submit()];
    expect((await claim())?.id).toBe(submitted.shift());
    expect((await claimAtOnce(8)).map(({ id }) => id).sort()).toEqual(submitted.sort());
  });

  it('gives nothing where nothing may run', async () => {
    const run = await side.startedRun({ maxAttempts: 2, retryOn: ['worker_lost'] });
    await side.endings.conclude(run, [], afterLoss);
    await side.stores.query(`UPDATE processes SET retry_at = now() + interval '1 hour'`);
    const overdue = await side.submit({ queueTimeoutMs: 1_000 });
    await side.passQueueDeadline(overdue);
    const cancelled = await side.submit();
    await side.endings.cancel(cancelled, side.userId);
    expect(await side.claims.findEligible(10)).toEqual([]);
    expect(await claim()).toBeNull();
    await side.endRetryPause(run.processId);
    expect(await side.claims.findEligible(10)).toEqual([{ id: run.processId }]);
    expect((await claim())?.id).toBe(run.processId);
  });

  it('gives one process of a session at a time, and the next when that has ended', async () => {
    const [first, second] = await submitToOneSession(2);
    const another = await side.submit();
    expect([(await claim())?.id, (await claim())?.id, await claim()]).toEqual([first, another, null]);
    await side.endings.conclude({ processId: first!, fence: 1 }, [], () => ({
      kind: 'end',
      outcome: { status: 'completed' },
    }));
    expect((await claim())?.id).toBe(second);
  });

  it('gives one process of a session, however many claim at once', async () => {
    for (let round = 0; round < 10; round += 1) {
      await side.clear();
      const ids = await submitToOneSession(4);
      const another = await side.submit();
      const claimed = (await claimAtOnce(6)).map(({ id }) => id);
      expect(claimed.filter((id) => ids.includes(id))).toHaveLength(1);
      expect(claimed).toContain(another);
      expect(claimed).toHaveLength(2);
    }
  });

  it('gives the processes of a session in the order of their submission, whatever their rank', async () => {
    const ids = await submitToOneSession(3);
    await side.stores.query('UPDATE processes SET fair_rank = -fair_rank');
    expect(await side.claims.findEligible(10)).toMatchObject([{ id: ids[0] }]);
    for (const id of ids) {
      expect((await claim())?.id).toBe(id);
      expect(await claim()).toBeNull();
      await side.stores.query(`UPDATE processes SET status = 'completed' WHERE id = $1`, [id]);
    }
  });

  it('gives nothing of a session while what came first in it waits for its retry', async () => {
    const [first, second] = await submitToOneSession(2);
    await side.stores.query(`UPDATE processes SET retry_at = now() + interval '1 hour' WHERE id = $1`, [
      first,
    ]);
    expect(await claim()).toBeNull();
    await side.endings.cancel(first!, side.userId);
    expect((await claim())?.id).toBe(second);
  });

  it('waits for a process whose row is locked for something else, and does not leave empty-handed', async () => {
    const id = await side.submit();
    const other = new pg.Client({ connectionString: side.stores.databaseUrl });
    await other.connect();
    await other.query('BEGIN');
    await other.query('UPDATE processes SET metadata = metadata WHERE id = $1', [id]);
    const claiming = claim();
    // The claim has met the lock once it has asked whether something is eligible.
    for (let asked = 0; asked === 0;) {
      const rows = await side.stores.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%SELECT id FROM processes candidate%' AND pid <> pg_backend_pid()`,
      );
      asked = rows[0]?.n ?? 0;
    }
    await other.query('COMMIT');
    await other.end();
    expect((await claiming)?.id).toBe(id);
  });

  it('tells how far the transcript of its session has come, also what is being written', async () => {
    const { sessionId } = await side.find(await side.submit());
    const other = new pg.Client({ connectionString: side.stores.databaseUrl });
    await other.connect();
    await other.query('BEGIN');
    await other.query('UPDATE sessions SET last_ordinal = 7 WHERE id = $1', [sessionId]);
    const claiming = claim();
    await side.untilWaitingForLocks(1);
    await other.query('COMMIT');
    await other.end();
    expect(await claiming).toMatchObject({ sessionId, transcriptMark: 7 });
  });

  it('raises the fence, so that the claim before it can write no more', async () => {
    const run = await side.run();
    await side.endings.conclude(run, [], afterLoss);
    expect(await claim('another')).toMatchObject({
      id: run.processId,
      fence: run.fence + 1,
      owner: 'another',
    });
    const events = [{ type: 'text' as const, messageId: 'm', text: 'late' }];
    expect(await side.log.append([{ run, lastSeq: run.lastSeq, events, facts: {} }])).toEqual(new Map());
    expect(await side.endings.conclude(run, [], afterLoss)).toBeNull();
  });

  it('of a process that a cancel comes for at the same moment has one winner', async () => {
    for (let round = 0; round < 10; round += 1) {
      const id = await side.submit();
      const [claimed, cancelled] = await Promise.all([claim(), side.endings.cancel(id, side.userId)]);
      expect(cancelled.kind).toBe(claimed === null ? 'ended' : 'requested');
      expect((await side.find(id)).status).toBe(claimed === null ? 'cancelled' : 'running');
      await side.clear();
    }
  });

  it('is over with a lease that nobody prolongs: those are found first that ended first', async () => {
    const runs = [await side.run(), await side.run(), await side.run()];
    expect(await side.claims.findExpired(10)).toEqual([]);
    for (const { processId } of runs.slice(1).toReversed()) await side.expire(processId);
    const expired = runs.slice(1).toReversed();
    expect(await side.claims.findExpired(10)).toEqual(
      expired.map(({ processId, fence }) => ({ processId, fence })),
    );
    expect(await side.claims.findExpired(1)).toHaveLength(1);
  });
});
