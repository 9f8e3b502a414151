import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import { type ApiClient } from './support/api-client.js';
import { type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { createStores, type TestStores } from './support/stores.js';
import { startTestServer, type TestServer } from './support/test-server.js';

const LONG = 'one two three four five six seven eight nine ten';

/** How often the model was shown a prompt in each request that showed it at all. */
const showings = (messages: MessagesApi, prompt: string) =>
  messages.requests
    .map(({ body }) => JSON.stringify(body).split(JSON.stringify(prompt).slice(1, -1)).length - 1)
    .filter((count) => count > 0);

describe('a run that its caller lets be repeated', () => {
  let runner: TestServer;
  beforeAll(async () => {
    runner = await startTestServer();
  });
  afterAll(() => runner.stop());

  const run = async (prompt: string, on: string, request: object = {}) => {
    const retry = { maxAttempts: 2, on: [on] };
    const { id } = await runner.client.submit({ prompt, retry, ...request });
    return runner.client.untilEnded(id);
  };

  it('goes on where the Messages API failed, and costs what all attempts cost', async () => {
    const prompt = 'Fail first\n[[status 529 times=2]]\n[[text Done.]]\n[[usage in=70 out=7]]';
    const ended = await run(prompt, 'upstream_overloaded');
    expect(ended).toMatchObject({ status: 'completed', result: 'Done.', attempt: 2 });
    expect(ended.usage).toMatchObject({ inputTokens: 70, outputTokens: 7 });
    expect(showings(runner.messages, prompt)).toEqual([1, 1, 1]);
  });

  it('goes on where it was timed out, and adds up what its attempts used', async () => {
    const prompt =
      'Take long\n[[tool Glob {"pattern":"*"}]]\n[[hang after=1 times=1]]\n[[text Done.]]\n[[usage in=50 out=5]]';
    const ended = await run(prompt, 'timeout', { timeoutMs: 10_000 });
    expect(ended).toMatchObject({ status: 'completed', attempt: 2, result: 'Done.' });
    // The tool's message in the first attempt, the answer in the second; the message that hung never began.
    expect(ended.usage).toMatchObject({ inputTokens: 100, outputTokens: 10 });
    const { body: usual } = await runner.client.execute({ prompt: '[[usage in=50 out=5]]' });
    expect(ended.costUsd).toBeCloseTo(2 * (usual.costUsd ?? 0), 10);
    const { items } = await runner.client.events(ended.id, '?limit=1000');
    expect(items.filter(({ type }) => type === 'tool_use')).toHaveLength(1);
    expect(new Set(showings(runner.messages, prompt))).toEqual(new Set([1]));
  });
});

describe('a run whose worker is lost', () => {
  let stores: TestStores;
  let messages: MessagesApi;
  let api: SpawnedServer;
  let client: ApiClient;
  let servers: SpawnedServer[];

  const spawn = async (environment: NodeJS.ProcessEnv) => {
    const server = await spawnServer({
      DATABASE_URL: stores.databaseUrl,
      REDIS_URL: stores.redisUrl,
      ANTHROPIC_API_KEY: 'sk-ant-test',
      ANTHROPIC_BASE_URL: messages.url,
      LEASE_TTL_MS: '4000',
      LEASE_HEARTBEAT_MS: '500',
      LEASE_FENCE_MS: '3000',
      RECONCILER_INTERVAL_MS: '200',
      ...environment,
    });
    servers.push(server);
    return server;
  };

  beforeEach(async () => {
    servers = [];
    stores = await createStores();
    messages = await startMessagesApi();
    api = await spawn({ ROLE: 'api' });
    client = api.client();
  });
  afterEach(async () => {
    for (const server of servers) {
      server.kill('SIGKILL');
      await server.exited;
      server.remove();
    }
    await messages.close();
    await stores.drop();
  });

  const submit = (prompt: string) =>
    client.submit({ prompt, retry: { maxAttempts: 3, on: ['worker_lost'] } });
  const isKept = async (what: string) => {
    const sql = 'SELECT 1 FROM session_entries WHERE uuid = $1 OR entry::text LIKE $1';
    while ((await stores.query(sql, [what])).length === 0);
  };
  const isAsked = (prompt: string) => messages.waitForRequest((request) => request.prompt === prompt);
  const eventsOf = async (id: string): Promise<ProcessEvent[]> =>
    (await client.events(id, '?limit=1000')).items;

  it('goes on at another worker after a kill -9, and its prompt is asked once', async () => {
    const worker = await spawn({ ROLE: 'worker' });
    const prompt = 'Lose it\n[[hang times=1]]\n[[text Here it is.]]';
    const { id } = await submit(prompt);
    await Promise.all([isKept(id), isAsked(prompt)]);
    worker.kill('SIGKILL');
    await spawn({ ROLE: 'worker' });
    expect(await client.untilEnded(id)).toMatchObject({
      status: 'completed',
      result: 'Here it is.',
      attempt: 2,
    });
    expect(showings(messages, prompt)).toEqual([1, 1]);
    const types = (await eventsOf(id)).map(({ type }) => type);
    expect(types.filter((type) => ['started', 'retrying', 'completed'].includes(type))).toEqual([
      ...['started', 'retrying', 'started', 'completed'],
    ]);
  });

  it('does not do again what it did before a kill -9', async () => {
    const worker = await spawn({ ROLE: 'worker' });
    const prompt = `Act\n[[tool Glob {"pattern":"*"}]]\n[[hang after=1 times=1]]\n[[text ${LONG}]]`;
    const { id } = await submit(prompt);
    await client.waitForEvent(id, ({ type }) => type === 'tool_result');
    await isKept(`%"type":"tool_result"%`);
    worker.kill('SIGKILL');
    await spawn({ ROLE: 'worker' });
    expect(await client.untilEnded(id)).toMatchObject({ status: 'completed', result: LONG, attempt: 2 });
    expect((await eventsOf(id)).filter(({ type }) => type === 'tool_use')).toHaveLength(1);
    expect(new Set(showings(messages, prompt))).toEqual(new Set([1]));
  });

  it('is asked as at first where its conversation was not kept yet', async () => {
    const worker = await spawn({ ROLE: 'worker' });
    const prompt = 'Ask again\n[[hang times=1]]\n[[text Here it is.]]';
    const { id } = await submit(prompt);
    await Promise.all([isKept(id), isAsked(prompt)]);
    worker.kill('SIGKILL');
    await worker.exited;
    await stores.query('DELETE FROM session_entries');
    await spawn({ ROLE: 'worker' });
    expect(await client.untilEnded(id)).toMatchObject({ status: 'completed', result: 'Here it is.' });
    expect(showings(messages, prompt)).toEqual([1, 1]);
  });

  it('goes on at the next after a shutdown', async () => {
    const worker = await spawn({ ROLE: 'worker', SHUTDOWN_GRACE_MS: '100' });
    const prompt = 'Move it\n[[hang times=1]]\n[[text Here it is.]]';
    const { id } = await submit(prompt);
    await Promise.all([isKept(id), isAsked(prompt)]);
    await worker.terminate();
    await spawn({ ROLE: 'worker' });
    expect(await client.untilEnded(id)).toMatchObject({
      status: 'completed',
      result: 'Here it is.',
      attempt: 2,
    });
    expect(showings(messages, prompt)).toEqual([1, 1]);
  });
});
