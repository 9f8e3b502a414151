import fc from 'fast-check';
import pg from 'pg';
import { v7 as uuid } from 'uuid';
import { tick } from '../../test/support/fake-log.js';
import { startTcpProxy, type TcpProxy } from '../../test/support/tcp-proxy.js';
import { NO_LIMITS, WriteSide } from '../../test/support/write-side.js';
import type { NewProcess } from './process-row.repository.js';
import type { Submitted } from './process-submissions.repository.js';
import { afterEnding } from './run-verdict.js';

const DAY_MS = 24 * 60 * 60 * 1000;

let side: WriteSide;
/** Another server on the same database. */
let other: WriteSide;

beforeAll(async () => {
  side = await WriteSide.open();
  other = side.by(side.stores.databaseUrl);
});
afterAll(async () => {
  await other.prisma.$disconnect();
  await side.close();
});
beforeEach(() => side.clear());

interface Post {
  key?: string;
  /** What it asks for, as its hash. */
  body?: number;
  limits?: typeof NO_LIMITS;
  userId?: string;
  by?: WriteSide;
}

function submit({ key, body = 1, limits = NO_LIMITS, userId = side.userId, by = side }: Post = {}) {
  const process: NewProcess = {
    id: uuid(),
    userId,
    session: { kind: 'new', id: uuid() },
    prompt: 'Do it',
    promptPreview: 'Do it',
    request: {},
    metadata: {},
    priority: 5,
    maxAttempts: 1,
    retryOn: [],
    queueTimeoutMs: null,
    demo: false,
  };
  const named = key === undefined ? null : { key, requestHash: new Uint8Array([body]), keptMs: DAY_MS };
  return by.submissions.submit({ process, named, limits });
}

const times = <T>(count: number, make: (index: number) => T) =>
  Array.from({ length: count }, (_, n) => make(n));
const kindsOf = (submitted: Submitted[]) => submitted.map(({ kind }) => kind);
const idOf = (submitted: Submitted) =>
  submitted.kind === 'created' ? submitted.row.id : 'processId' in submitted ? submitted.processId : null;

async function expectProcesses(count: number): Promise<void> {
  const rows = await side.stores.query(
    `SELECT (SELECT count(*)::int FROM processes) AS processes, (SELECT count(*)::int FROM sessions) AS sessions`,
  );
  expect(rows).toEqual([{ processes: count, sessions: count }]);
}

describe('a name', () => {
  it('makes one process, however many come with it at once, at whichever server', async () => {
    const submitted = await Promise.all(
      times(100, (n) => submit({ key: 'once', by: n % 2 === 0 ? side : other })),
    );
    expect(new Set(submitted.map(idOf)).size).toBe(1);
    expect(kindsOf(submitted).filter((kind) => kind === 'created')).toHaveLength(1);
    await expectProcesses(1);
  });

  it('that another server gives to a process while this one writes its own, is the other’s', async () => {
    // From the second on there is a share, and no lock needed.
    const first = idOf(await submit());
    const writer = new pg.Client(side.stores.databaseUrl);
    await writer.connect();
    await writer.query('BEGIN');
    await writer.query('UPDATE queue_shares SET number = number WHERE user_id = $1', [side.userId]);
    await writer.query(
      `INSERT INTO idempotency_keys (user_id, key, request_hash, process_id, expires_at)
       VALUES ($1, 'raced', $2, $3, now() + interval '1 day')`,
      [side.userId, Buffer.from([1]), first],
    );
    const submitted = submit({ key: 'raced' });
    await side.untilWaitingForLocks(1);
    await writer.query('COMMIT');
    await writer.end();
    expect(await submitted).toEqual({ kind: 'joined', processId: first });
    await expectProcesses(1);
  });

  it('is its user’s own', async () => {
    const stranger = await side.addUser();
    expect(kindsOf([await submit({ key: 'mine' }), await submit({ key: 'mine', userId: stranger })])).toEqual(
      ['created', 'created'],
    );
  });

  it('stands for something else once it has expired', async () => {
    const first = await submit({ key: 'old', body: 1 });
    await side.stores.query('UPDATE idempotency_keys SET expires_at = now()');
    expect(await side.submissions.findNamed(side.userId, named('old', 1))).toBeNull();
    const second = await submit({ key: 'old', body: 2 });
    expect(second.kind).toBe('created');
    expect(idOf(second)).not.toBe(idOf(first));
    expect(await submit({ key: 'old', body: 1 })).toEqual({ kind: 'key_reused' });
    expect(await submit({ key: 'old', body: 2 })).toEqual({ kind: 'joined', processId: idOf(second) });
    const [{ hours }] = (await side.stores.query<{ hours: number }>(
      'SELECT extract(epoch FROM expires_at - now())::float8 / 3600 AS hours FROM idempotency_keys',
    )) as [{ hours: number }];
    expect(hours).toBeGreaterThan(23);
    expect(hours).toBeLessThanOrEqual(24);
  });

  const named = (key: string, body: number) => ({ key, requestHash: new Uint8Array([body]), keptMs: DAY_MS });

  it('joins or refuses as a list of names would, whatever comes at once', async () => {
    const post = fc.record({ key: fc.constantFrom('a', 'b', 'c'), body: fc.integer({ min: 1, max: 2 }) });
    const step = fc.record({
      posts: fc.array(post, { minLength: 1, maxLength: 6 }),
      expires: fc.option(fc.constantFrom('a', 'b', 'c'), { freq: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 5 }), async (steps) => {
        await side.clear();
        const names = new Map<string, { id: string; body: number }>();
        let created = 0;
        for (const { posts, expires } of steps) {
          const submitted = await Promise.all(
            posts.map((each, n) => submit({ ...each, by: n % 2 === 0 ? side : other })),
          );
          submitted.forEach((answer, n) => {
            if (answer.kind !== 'created') return;
            created += 1;
            // Nobody makes one for a name that stands for something.
            expect(names.has(posts[n]!.key)).toBe(false);
            names.set(posts[n]!.key, { id: answer.row.id, body: posts[n]!.body });
          });
          submitted.forEach((answer, n) => {
            const { id, body } = names.get(posts[n]!.key)!;
            const isSame = body === posts[n]!.body;
            expect(answer.kind === 'key_reused').toBe(!isSame);
            expect(idOf(answer)).toBe(isSame ? id : null);
          });
          if (expires !== null) {
            await side.stores.query('UPDATE idempotency_keys SET expires_at = now() WHERE key = $1', [
              expires,
            ]);
            names.delete(expires);
          }
        }
        await expectProcesses(created);
      }),
      { numRuns: 40 },
    );
  });
});

describe('what is answered', () => {
  const PROCESS: Partial<NewProcess> = {
    prompt: 'Say “ü”, 😀 and \\',
    promptPreview: 'Say',
    request: { model: 'a-model', outputSchema: '{"b":1,"a":2}' },
    metadata: { team: 'b', job: 'a' },
    priority: 7,
    maxAttempts: 3,
    retryOn: ['worker_lost', 'rate_limited'],
    queueTimeoutMs: 12_345,
    demo: true,
  };
  const submitNew = (options: Partial<NewProcess>) => {
    const process = side.newProcess(options);
    return side.submissions.submit({ process, named: null, limits: NO_LIMITS });
  };

  it('is the row as it was written, whichever way that was, and so is the first entry of its log', async () => {
    // The second goes before the first.
    for (const options of [{ ...PROCESS, priority: 5 }, PROCESS]) {
      const submitted = await submitNew(options);
      if (submitted.kind !== 'created') throw new Error(submitted.kind);
      const { fairRank: _given, ...row } = submitted.row;
      const { fairRank: _written, ...written } = await side.find(row.id);
      expect(row).toEqual(written);
      expect(submitted.queuePosition).toBe(1);
      const events = await side.events(row.id);
      expect(submitted.events).toEqual(events);
      const createdAt = row.createdAt.toISOString();
      expect(events).toMatchObject([
        { seq: 1, type: 'created', process: { ...VIEW, createdAt, lastSeq: 1 } },
        { seq: 2, type: 'queued', position: 1 },
      ]);
    }
  });

  const VIEW = { status: 'pending', queuePosition: 1, prompt: PROCESS.prompt, metadata: PROCESS.metadata };

  it('is that there is no session where there is none, and then nothing is written', async () => {
    const stranger = await side.addUser();
    const { sessionId } = await side.find(await side.submit());
    for (const [userId, id] of [
      [side.userId, uuid()],
      [stranger, sessionId],
    ] as const)
      await expect(submitNew({ userId, session: { kind: 'continued', id } })).rejects.toMatchObject({
        code: 'session_not_found',
      });
    await expectProcesses(1);
  });
});

describe('a full queue', () => {
  it('takes from a user exactly as many as may wait, however many come at once, at whichever server', async () => {
    const limits = { maxPending: 100, maxPendingPerUser: 7 };
    const submitted = await Promise.all(times(50, (n) => submit({ limits, by: n % 2 === 0 ? side : other })));
    expect(submitted.filter(({ kind }) => kind === 'created')).toHaveLength(7);
    expect(submitted.filter(({ kind }) => kind !== 'created')).toEqual(
      times(43, () => ({ kind: 'full', of: 'user' })),
    );
    await expectProcesses(7);
    await side.claim();
    expect((await submit({ limits })).kind).toBe('created');
  });

  it('takes from nobody more than may wait in all, but for what is written at the same moment', async () => {
    const users = await Promise.all(times(200, () => side.addUser()));
    // Who has a share needs no lock.
    await Promise.all(users.map((userId) => submit({ userId })));
    await side.clear();
    const limits = { maxPending: 10, maxPendingPerUser: 1 };
    const submitted = await Promise.all(users.map((userId) => submit({ userId, limits })));
    const created = submitted.filter(({ kind }) => kind === 'created').length;
    expect(created).toBeGreaterThanOrEqual(10);
    expect(created).toBeLessThan(10 + CONNECTIONS);
    expect(await submit({ limits })).toEqual({ kind: 'full', of: 'all' });
  });

  // Of a server to the database.
  const CONNECTIONS = 20;

  it('writes nothing, and keeps no name', async () => {
    const limits = { maxPending: 100, maxPendingPerUser: 1 };
    await submit({ limits });
    expect(await submit({ key: 'refused', limits })).toEqual({ kind: 'full', of: 'user' });
    await expectProcesses(1);
    await side.claim();
    expect((await submit({ key: 'refused', limits })).kind).toBe('created');
  });

  it('makes no fork either, for which the last place is taken meanwhile', async () => {
    const limits = { maxPending: 1, maxPendingPerUser: 1 };
    const stranger = await side.addUser();
    const run = await side.run();
    await side.endings.conclude(run, [], (history) => afterEnding(history, { status: 'completed' }));
    const { sessionId: originId } = await side.find(run.processId);
    const holder = new pg.Client(side.stores.databaseUrl);
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE', [originId]);
    const session = { kind: 'forked' as const, id: uuid(), originId };
    const submitted = side.submissions.submit({ process: side.newProcess({ session }), named: null, limits });
    await side.untilWaitingForLocks(1);
    await submit({ userId: stranger, limits });
    await holder.query('COMMIT');
    await holder.end();
    expect(await submitted).toEqual({ kind: 'full', of: 'all' });
    expect(await side.prisma.session.findUnique({ where: { id: session.id } })).toBeNull();
  });

  it('lets whoever asks again join what they made', async () => {
    const limits = { maxPending: 1, maxPendingPerUser: 1 };
    const first = await submit({ key: 'again', limits });
    expect(await submit({ key: 'again', limits })).toEqual({ kind: 'joined', processId: idOf(first) });
    expect(await submit({ key: 'again', body: 2, limits })).toEqual({ kind: 'key_reused' });
  });
});

describe('a submit whose answer is lost', () => {
  let proxy: TcpProxy;
  let cutOff: WriteSide;

  beforeEach(async () => {
    proxy = await startTcpProxy(side.stores.databaseUrl);
    cutOff = side.by(proxy.url);
    await cutOff.prisma.ping();
  });
  afterEach(async () => {
    await cutOff.prisma.$disconnect();
    await proxy.close();
  });

  /** Whose user has no share in the queue yet is taken in by a transaction. */
  const forgetShares = () => side.stores.query('DELETE FROM queue_shares');

  it.each([
    ['one statement', /WITH share AS/, submit],
    ['a transaction', /COMMIT/, forgetShares],
  ])('of %s is looked for, and found: there is one process', async (_way, to, prepare) => {
    await prepare();
    await side.clear();
    proxy.swallowAnswers({ to, times: 1 });
    const submitted = await submit({ by: cutOff });
    expect(proxy.swallowed).toBe(1);
    expect(submitted.kind).toBe('created');
    await expectProcesses(1);
    expect(await side.eventTypes(idOf(submitted)!)).toEqual(['created', 'queued']);
  });

  it.each([
    ['the look at the queue', /SELECT place/, submit],
    ['a statement of a transaction', /WITH share AS/, forgetShares],
  ])('of %s has written nothing, and says so', async (_way, to, prepare) => {
    await prepare();
    await side.clear();
    proxy.swallowAnswers({ to, times: 1 });
    await expect(submit({ by: cutOff })).rejects.toThrow();
    expect(proxy.swallowed).toBe(1);
    await expectProcesses(0);
  });

  it('and that comes late, after it was refused, makes no process', async () => {
    const stranger = await side.addUser();
    await Promise.all([submit(), submit({ userId: stranger })]);
    await side.clear();
    const limits = { maxPending: 1, maxPendingPerUser: 1 };
    const holder = new pg.Client(side.stores.databaseUrl);
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('SELECT 1 FROM queue_shares WHERE user_id = $1 FOR UPDATE', [side.userId]);
    proxy.strandRequests({ to: /WITH share AS/, times: 1 });
    const submitted = submit({ key: 'late', by: cutOff, limits });
    // The second try, which wants the lock.
    await side.untilWaitingForLocks(1);
    await submit({ userId: stranger, limits });
    await holder.query('COMMIT');
    await holder.end();
    expect(await submitted).toEqual({ kind: 'full', of: 'all' });
    await side.clear();
    proxy.restore();
    while (proxy.swallowed === 0) await tick();
    await expectProcesses(0);
  });

  it('and cannot be looked for is joined by whoever asks again by its name', async () => {
    await submit();
    await side.clear();
    proxy.swallowAnswers({ to: /WITH share AS/, times: 1 });
    const lost = submit({ key: 'lost', by: cutOff });
    lost.catch(() => undefined);
    while (proxy.swallowed === 0) await tick();
    proxy.cut();
    await expect(lost).rejects.toThrow();
    const again = await submit({ key: 'lost', by: other });
    expect(again.kind).toBe('joined');
    await expectProcesses(1);
  });
});
