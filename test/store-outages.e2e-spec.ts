import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import { type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { createStores, type TestStores } from './support/stores.js';
import { startTcpProxy, type TcpProxy } from './support/tcp-proxy.js';

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
afterEach(async () => {
  for (const proxy of Object.values(proxies)) await proxy.restore();
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
    server.kill('SIGKILL');
    await server.exited;
    server.remove();
  });

  const outages = (['redis', 'database'] as const).flatMap((store) =>
    (['cut', 'blackHole'] as const).map((trouble) => ({ store, trouble })),
  );

  it.each(outages)('ends cleanly and soon: $store $trouble', async ({ store, trouble }) => {
    await start();
    await proxies[store][trouble]();
    await untilNotReady();
    expect(await terminate()).toEqual(CLEAN);
  });

  it.each(outages.filter(({ store }) => store === 'redis'))(
    'ends cleanly and soon, though a process ran: $store $trouble',
    async ({ trouble }) => {
      await start({ SHUTDOWN_GRACE_MS: '200' });
      const { id, prompt } = await server.client().submit({ prompt: `Until ${trouble}\n[[hang]]` });
      await messages.waitForRequest((request) => request.prompt === prompt);
      await proxies.redis[trouble]();
      await untilNotReady();
      expect(await terminate()).toEqual(CLEAN);
      expect(await stores.query('SELECT status, error FROM processes WHERE id = $1', [id])).toMatchObject([
        { status: 'failed', error: { code: 'worker_lost' } },
      ]);
    },
  );
});
