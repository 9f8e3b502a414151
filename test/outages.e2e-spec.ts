import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import type { ApiClient } from './support/api-client.js';
import { cliProcessesOf, untilNoCliOf } from './support/cli-processes.js';
import { findBrokenInvariants } from './support/invariants.js';
import { killAll, type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { createStores, type TestStores } from './support/stores.js';
import { startTcpProxy, type TcpProxy } from './support/tcp-proxy.js';

const UNAVAILABLE = { status: 503, body: { code: 'unavailable', retryable: true } };
/** Much, on a busy machine; what hangs would hang for ever. */
const BOUNDED_MS = 30_000;
/** Far enough apart for a busy machine to keep them in order. */
const SHORT_LEASE = {
  LEASE_TTL_MS: '12000',
  LEASE_FENCE_MS: '5000',
  LEASE_HEARTBEAT_MS: '500',
  RECONCILER_INTERVAL_MS: '300',
};

let stores: TestStores;
let messages: MessagesApi;
let database: TcpProxy;
let redis: TcpProxy;
let server: SpawnedServer;

beforeEach(async () => {
  stores = await createStores();
  messages = await startMessagesApi();
  [database, redis] = [await startTcpProxy(stores.databaseUrl), await startTcpProxy(stores.redisUrl)];
});
afterEach(async () => {
  await killAll([server]);
  const broken = await findBrokenInvariants(stores.query);
  for (const proxy of [database, redis]) await proxy.close();
  await messages.close();
  await stores.drop();
  if (broken.length > 0) throw new Error(JSON.stringify(broken));
});

async function start(environment: NodeJS.ProcessEnv = {}) {
  server = await spawnServer({
    DATABASE_URL: database.url,
    REDIS_URL: redis.url,
    ANTHROPIC_API_KEY: 'sk-ant-test',
    ANTHROPIC_BASE_URL: messages.url,
    ...environment,
  });
  return server.client();
}

const isAsked = (prompt: string) => messages.waitForRequest((request) => request.prompt === prompt);

/** As many events of a stream as the test wants; the rest stays to be read. */
async function readUntil(
  events: AsyncGenerator<ProcessEvent, void>,
  isLast: (event: ProcessEvent) => boolean,
): Promise<ProcessEvent[]> {
  const seen: ProcessEvent[] = [];
  for (let next = await events.next(); !next.done; next = await events.next()) {
    seen.push(next.value);
    if (isLast(next.value)) break;
  }
  return seen;
}

const isText = ({ type }: ProcessEvent) => type === 'text';
const seqsOf = (events: ProcessEvent[]) => events.map(({ seq }) => seq);
const fromOne = (events: ProcessEvent[]) => events.map((_, index) => index + 1);

/** A process that speaks for some seconds, with somebody who waits for it and somebody who reads along. */
async function startTalking(client: ApiClient) {
  const prompt = '[[text It went on.]]\n[[deltas 12 400]]';
  const waiting = client.execute({ prompt });
  await isAsked(prompt);
  const [row] = await stores.query<{ id: string }>('SELECT id FROM processes');
  const id = row?.id ?? '';
  const stream = client.stream(id);
  return { id, waiting, stream, before: await readUntil(stream, isText) };
}

async function expectWholeStory(stream: AsyncGenerator<ProcessEvent, void>, before: ProcessEvent[]) {
  const after = await readUntil(stream, () => false);
  expect(after.at(-1)).toMatchObject({ type: 'completed', process: { result: 'It went on.' } });
  expect(seqsOf([...before, ...after])).toEqual(fromOne([...before, ...after]));
}

describe('while PostgreSQL is away for a moment', () => {
  it('submits and reads say so, what runs goes on, streams and waits are told the rest of it', async () => {
    const client = await start();
    const { id, waiting, stream, before } = await startTalking(client);
    database.cut();
    const refused = await Promise.all([
      client.request('POST', '/api/v1/claude/execute/async', { prompt: 'Not now' }),
      client.request('GET', `/api/v1/claude/processes/${id}`),
    ]);
    expect(refused).toMatchObject([UNAVAILABLE, UNAVAILABLE]);
    for (const { headers } of refused) expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
    database.restore();
    await expectWholeStory(stream, before);
    expect(await waiting).toMatchObject({ status: 200, body: { id, status: 'completed' } });
    expect(await stores.query('SELECT 1 FROM processes')).toHaveLength(1);
  });

  it('and its connections are dead without a word: what runs goes on all the same', async () => {
    const client = await start();
    // As many connections as there are, all of which are to die.
    await Promise.all(Array.from({ length: 40 }, () => client.request('GET', '/api/v1/claude/processes')));
    const { id, waiting, stream, before } = await startTalking(client);
    database.blackHole();
    while ((await fetch(`${server.url}/health/ready`)).status !== 503);
    database.restore();
    await expectWholeStory(stream, before);
    expect(await waiting).toMatchObject({ status: 200, body: { id, status: 'completed' } });
  });

  it('a wait that is over meanwhile is answered with what was made: 202', async () => {
    const client = await start();
    const prompt = 'Wait for it\n[[hang]]';
    const waiting = client.execute({ prompt }, { Prefer: 'wait=3' });
    await isAsked(prompt);
    database.cut();
    const { status, headers, body } = await waiting;
    expect([status, headers.get('location')]).toEqual([202, `/api/v1/claude/processes/${body.id}`]);
    database.restore();
    expect(await stores.query('SELECT id FROM processes')).toEqual([{ id: body.id }]);
  });
});

describe('while PostgreSQL is away for longer than a lease can do without it', () => {
  it.each(['cut', 'blackHole'] as const)(
    '%s: what runs is ended before anybody else may take it, fails as worker_lost, and the server heals',
    async (trouble) => {
      const client = await start(SHORT_LEASE);
      const prompt = 'Lose it\n[[hang]]';
      const { id } = await client.submit({ prompt });
      await isAsked(prompt);
      expect(await cliProcessesOf(server.dataDirectory)).not.toEqual([]);
      database[trouble]();
      await untilNoCliOf(server.dataDirectory);
      expect(
        await stores.query('SELECT status, lease_until > clock_timestamp() AS "isHeld" FROM processes'),
      ).toEqual([{ status: 'running', isHeld: true }]);
      database.restore();

      expect(await client.untilEnded(id)).toMatchObject({
        status: 'failed',
        error: { code: 'worker_lost', retryable: true },
      });
      const next = await client.execute({ prompt: 'Go on\n[[text On.]]' });
      expect(next).toMatchObject({ status: 200, body: { status: 'completed', result: 'On.' } });
    },
  );

  it('what may be repeated runs again when it is back, and is not suspected, however often', async () => {
    const client = await start(SHORT_LEASE);
    const prompt = 'Repeat it\n[[hang times=2]]\n[[text Again.]]';
    const { id } = await client.submit({ prompt, retry: { maxAttempts: 3, on: ['worker_lost'] } });
    for (const attempt of [1, 2]) {
      await client.waitForEvent(id, (event) => event.type === 'started' && event.attempt === attempt);
      let asked = 0;
      await messages.waitForRequest((request) => request.prompt === prompt && ++asked === attempt);
      database.cut();
      await untilNoCliOf(server.dataDirectory);
      database.restore();
    }
    expect(await client.untilEnded(id)).toMatchObject({
      status: 'completed',
      error: null,
      result: 'Again.',
      attempt: 3,
    });
    const { items } = await client.events(id, '?limit=1000');
    expect(items.filter(({ type }) => type === 'retrying')).toMatchObject([
      { attempt: 2, code: 'worker_lost' },
      { attempt: 3, code: 'worker_lost' },
    ]);
    expect(await stores.query('SELECT loss_count FROM processes')).toEqual([{ loss_count: 0 }]);
  });

  it.each(['cut', 'blackHole'] as const)(
    '%s: told to stop, the server ends cleanly all the same, and leaves no CLI',
    async (trouble) => {
      const client = await start({ ...SHORT_LEASE, SHUTDOWN_GRACE_MS: '1000' });
      const prompt = 'Stop it\n[[hang]]';
      const { id } = await client.submit({ prompt });
      await isAsked(prompt);
      database[trouble]();
      const began = performance.now();
      expect(await server.terminate()).toMatchObject({ code: 0 });
      expect(performance.now() - began).toBeLessThan(BOUNDED_MS);
      expect(await cliProcessesOf(server.dataDirectory)).toEqual([]);
      database.restore();
      await start({ ...SHORT_LEASE, ROLE: 'api', DATA_DIR: server.dataDirectory });
      expect(await server.client().untilEnded(id)).toMatchObject({
        status: 'failed',
        error: { code: 'worker_lost' },
      });
    },
  );
});

describe('while Redis is away', () => {
  it.each(['cut', 'blackHole'] as const)(
    '%s: submits are taken, what runs goes on and is streamed, and what waits runs when it is back',
    async (trouble) => {
      const client = await start();
      const running = await client.submit({ prompt: '[[text It went on.]]\n[[deltas 8 400]]' });
      const stream = client.stream(running.id);
      const before = await readUntil(stream, isText);
      redis[trouble]();
      const accepted = await client.request<{ id: string }>('POST', '/api/v1/claude/execute/async', {
        prompt: 'Later\n[[text Later.]]',
      });
      expect(accepted.status).toBe(202);
      const after = await readUntil(stream, () => false);
      expect(after.at(-1)).toMatchObject({ type: 'completed', process: { result: 'It went on.' } });
      expect(seqsOf([...before, ...after])).toEqual(fromOne([...before, ...after]));
      redis.restore();
      expect(await client.untilEnded(accepted.body.id)).toMatchObject({
        status: 'completed',
        result: 'Later.',
      });
    },
  );

  it('a cancel reaches what runs by the next heartbeat', async () => {
    const client = await start({ LEASE_HEARTBEAT_MS: '500' });
    const prompt = 'Cancel it\n[[hang]]';
    const { id } = await client.submit({ prompt });
    await isAsked(prompt);
    redis.cut();
    expect((await client.cancel(id)).status).toBe(202);
    expect(await client.untilEnded(id)).toMatchObject({ status: 'cancelled' });
    redis.restore();
  });

  it('everything in it is lost: what waits runs all the same', async () => {
    const client = await start({ WORKER_CONCURRENCY: '1' });
    const prompt = 'First\n[[delay 3000]]\n[[text First.]]';
    const first = await client.submit({ prompt });
    await isAsked(prompt);
    const second = await client.submit({ prompt: 'Second\n[[text Second.]]' });
    await stores.redis.flushdb();
    expect(await client.untilEnded(first.id)).toMatchObject({ status: 'completed', result: 'First.' });
    expect(await client.untilEnded(second.id)).toMatchObject({ status: 'completed', result: 'Second.' });
  });
});
