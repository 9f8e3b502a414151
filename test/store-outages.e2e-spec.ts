import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { Health } from '../src/claude/claude.schemas.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { killAll, type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { createStores, type TestStores } from './support/stores.js';
import { startTcpProxy, type TcpProxy } from './support/tcp-proxy.js';
import { ADMIN_PASSWORD, startTestServer, type TestServer } from './support/test-server.js';

/** Many seconds, on a busy machine; what hangs would hang for ever. */
const SECONDS_MS = 30_000;
const CLEAN = { code: 0, endedSoon: true };

let stores: TestStores;
let messages: MessagesApi;
let proxies: { database: TcpProxy; redis: TcpProxy };

beforeAll(async () => {
  stores = await createStores();
  messages = await startMessagesApi();
  proxies = {
    database: await startTcpProxy(stores.databaseUrl),
    redis: await startTcpProxy(stores.redisUrl),
  };
});
afterEach(() => {
  for (const proxy of Object.values(proxies)) proxy.restore();
});
afterAll(async () => {
  for (const proxy of Object.values(proxies)) await proxy.close();
  await messages.close();
  await stores.drop();
});

describe('a server that is told to stop while a store is away', () => {
  let server: SpawnedServer;

  const start = async (environment: NodeJS.ProcessEnv = {}) => {
    server = await spawnServer({
      DATABASE_URL: proxies.database.url,
      REDIS_URL: proxies.redis.url,
      ANTHROPIC_API_KEY: 'sk-ant-test',
      ANTHROPIC_BASE_URL: messages.url,
      ...environment,
    });
  };
  /** Until the server itself has noticed, and has asked the store in vain. */
  const untilNotReady = async () => {
    while ((await fetch(`${server.url}/health/ready`)).status !== 503);
  };
  const terminate = async () => {
    const began = performance.now();
    const { code } = await server.terminate();
    return { code, endedSoon: performance.now() - began < SECONDS_MS };
  };

  afterEach(async () => {
    await killAll([server]);
  });

  const outages = (['redis', 'database'] as const).flatMap((store) =>
    (['cut', 'blackHole'] as const).map((trouble) => ({ store, trouble })),
  );

  it.each(outages)('ends cleanly and soon: $store $trouble', async ({ store, trouble }) => {
    await start();
    proxies[store][trouble]();
    await untilNotReady();
    expect(await terminate()).toEqual(CLEAN);
  });

  it('ends cleanly and soon in the moment in which Redis is back', async () => {
    await start();
    proxies.redis.cut();
    await untilNotReady();
    proxies.redis.restore();
    expect(await terminate()).toEqual(CLEAN);
  });

  it('ends cleanly and soon though Redis was never there', async () => {
    proxies.redis.cut();
    await start();
    expect(await terminate()).toEqual(CLEAN);
  });

  it.each(outages.filter(({ store }) => store === 'redis'))(
    'ends cleanly and soon, though a process ran: $store $trouble',
    async ({ trouble }) => {
      await start({ SHUTDOWN_GRACE_MS: '200' });
      const { id, prompt } = await server.client().submit({ prompt: `Until ${trouble}\n[[hang]]` });
      await messages.waitForRequest((request) => request.prompt === prompt);
      proxies.redis[trouble]();
      await untilNotReady();
      expect(await terminate()).toEqual(CLEAN);
      expect(await stores.query('SELECT status, error FROM processes WHERE id = $1', [id])).toMatchObject([
        { status: 'failed', error: { code: 'worker_lost' } },
      ]);
    },
  );
});

describe('while PostgreSQL is away', () => {
  const UNAVAILABLE = { status: 503, code: 'unavailable', retryable: true };
  let runner: TestServer;
  let database: TcpProxy;
  let open: RecordedSocket;

  beforeAll(async () => {
    runner = await startTestServer(async ({ databaseUrl }) => {
      database = await startTcpProxy(databaseUrl);
      return { ROLE: 'api', DATABASE_URL: database.url };
    });
    open = await RecordedSocket.connect(runner.client);
    database.cut();
  });
  afterAll(async () => {
    open.close();
    database.restore();
    await runner.stop();
    await database.close();
  });

  const PROCESSES = '/api/v1/claude/processes';
  // The key that proves the token has not been asked for before.
  const clients = () => ({ 'an access token': runner.administrator, 'an API key': runner.client });

  it.each(['an access token', 'an API key'] as const)('%s is not called invalid over HTTP', async (name) => {
    const { status, headers, body } = await clients()[name].request('GET', PROCESSES);
    expect(status).toBe(503);
    expect(body).toMatchObject(UNAVAILABLE);
    expect(headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
  });

  it.each(['an access token', 'an API key'] as const)('%s is not called invalid by sockets', async (name) => {
    await expect(RecordedSocket.connect(clients()[name])).rejects.toMatchObject({ data: UNAVAILABLE });
  });

  it('neither is that of an open socket', async () => {
    const answer = await open.ask('claude:execute', { prompt: 'Hello' });
    expect(answer).toMatchObject({ ok: false, error: UNAVAILABLE });
  });

  it('a password is not called wrong', async () => {
    const body = { email: 'admin@claude-runner.local', password: ADMIN_PASSWORD };
    const answer = await runner.client.request('POST', '/api/v1/auth/login', body);
    expect(answer).toMatchObject({ status: 503, body: UNAVAILABLE });
  });

  it('and once it is back, all of them are taken', async () => {
    database.restore();
    for (const client of Object.values(clients()))
      expect((await client.request('GET', PROCESSES)).status).toBe(200);
  });
});

describe('the health', () => {
  let runner: TestServer;
  let redis: TcpProxy;

  beforeAll(async () => {
    runner = await startTestServer(async ({ redisUrl }) => {
      redis = await startTcpProxy(redisUrl);
      return { REDIS_URL: redis.url, WORKER_CONCURRENCY: '3' };
    });
  });
  afterAll(async () => {
    redis.restore();
    await runner.stop();
    await redis.close();
  });

  const read = async () => (await runner.administrator.request<Health>('GET', '/api/v1/claude/health')).body;

  it('says null of what only Redis could tell, not none', async () => {
    expect(await read()).toMatchObject({
      status: 'ok',
      parts: {
        workers: 1,
        slots: { total: 3, busy: 0 },
        cliVersions: [expect.any(String)],
        containment: [expect.any(String)],
        demo: false,
        cliPaths: [expect.any(String)],
      },
    });
    redis.cut();
    expect(await read()).toEqual({
      status: 'degraded',
      parts: {
        database: 'ok',
        redis: 'down',
        queueDepth: 0,
        queuePaused: null,
        workers: null,
        slots: null,
        cliVersions: null,
        containment: null,
        apiFallback: null,
        upstream: null,
        demo: null,
        problems: ['Redis does not answer.'],
        cliPaths: null,
      },
    });
  });
});
