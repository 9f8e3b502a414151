import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import { type ApiClient } from './support/api-client.js';
import { killAll, type SpawnedServer, spawnServer } from './support/spawned-server.js';
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
    const ended = await run(prompt, 'timeout', { timeoutMs: 20_000 });
    expect(ended).toMatchObject({ status: 'completed', attempt: 2, result: 'Done.' });
    // The tool's message in the first attempt, the answer in the second; the message that hung never began.
    expect(ended.usage).toMatchObject({ inputTokens: 100, outputTokens: 10 });
    const { body: usual } = await runner.client.execute({ prompt: '[[usage in=50 out=5]]' });
    expect(ended.costUsd).toBeCloseTo(2 * (usual.costUsd ?? 0), 10);
    const { items } = await runner.client.events(ended.id, '?limit=1000');
    expect(items.filter(({ type }) => type === 'tool_use')).toHaveLength(1);
    expect(new Set(showings(runner.messages, prompt))).toEqual(new Set([1]));
  });

  it('runs no more often than it may, and its log tells of each attempt', async () => {
    const ended = await run('Fail for good\n[[status 529]]', 'upstream_overloaded');
    expect(ended).toMatchObject({ status: 'failed', attempt: 2, error: { code: 'upstream_overloaded' } });
    const { items } = await runner.client.events(ended.id, '?limit=1000');
    const second = items.findIndex((event) => event.type === 'started' && event.attempt === 2);
    expect(items[second - 1]).toMatchObject({
      type: 'retrying',
      attempt: 2,
      code: 'upstream_overloaded',
      retryAt: expect.any(String) as string,
    });
    expect(items.filter(({ type }) => type === 'started')).toHaveLength(2);
    expect(items.at(-1)).toMatchObject({ type: 'failed', process: ended });
  });

  it('fails for good after a failure of another kind', async () => {
    const ended = await run('Fail otherwise\n[[status 529]]', 'timeout');
    expect(ended).toMatchObject({ status: 'failed', attempt: 1, error: { code: 'upstream_overloaded' } });
  });

  it('is cancelled at once while it is parked, and does not run again', async () => {
    const prompt = 'Park it\n[[status 529]]';
    const retry = { maxAttempts: 10, on: ['upstream_overloaded'] };
    const { id } = await runner.client.submit({ prompt, retry });
    let parked = await runner.client.find(id);
    // The pause before the third attempt: long enough for a busy machine.
    while (parked.attempt < 3) parked = await runner.client.find(id);
    expect(parked).toMatchObject({ status: 'pending', retryAt: expect.any(String) as string });
    const { status, body } = await runner.client.cancel(id);
    expect([status, body.status, body.retryAt]).toEqual([200, 'cancelled', null]);
    const { items } = await runner.client.events(id, '?limit=1000');
    expect(items.at(-1)).toMatchObject({ type: 'cancelled', process: body });
    const another = await runner.client.execute({ prompt: 'Go on\n[[text On.]]' });
    expect(another.body).toMatchObject({ status: 'completed', result: 'On.' });
    expect(await runner.client.find(id)).toEqual(body);
  });
});

describe('a process that wants to start in time', () => {
  let runner: TestServer;
  beforeAll(async () => {
    runner = await startTestServer({ WORKER_CONCURRENCY: '1', RECONCILER_INTERVAL_MS: '200' });
  });
  afterAll(() => runner.stop());

  it('fails as queue_timeout when no slot is free for it by then, and never runs', async () => {
    const slow = await runner.client.submit({ prompt: 'Hold the slot\n[[hang]]' });
    await runner.client.waitForEvent(slow.id, ({ type }) => type === 'started');
    const prompt = 'Too late';
    const late = await runner.client.execute({ prompt, queueTimeoutMs: 1_000 });
    expect(late.body).toMatchObject({
      status: 'failed',
      startedAt: null,
      error: { code: 'queue_timeout', retryable: true },
    });
    const { items } = await runner.client.events(late.body.id);
    expect(items.map(({ type }) => type)).toEqual(['created', 'queued', 'failed']);
    await runner.client.cancel(slow.id);
    const next = await runner.client.execute({ prompt: 'In time\n[[text Yes.]]', queueTimeoutMs: 60_000 });
    expect(next.body).toMatchObject({ status: 'completed', result: 'Yes.' });
    expect(showings(runner.messages, prompt)).toEqual([]);
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
      LEASE_TTL_MS: '8000',
      LEASE_HEARTBEAT_MS: '500',
      LEASE_FENCE_MS: '7000',
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
    await killAll(servers);
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
    // The one that hangs: the one before it was answered.
    await messages.waitForRequest((request) => request.prompt === prompt && request.outcome === 'pending');
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

  it('is not run again after the second worker that was lost with it', async () => {
    const prompt = 'Take them down\n[[hang]]';
    const { id } = await submit(prompt);
    for (const attempt of [1, 2]) {
      const worker = await spawn({ ROLE: 'worker' });
      await client.waitForEvent(id, (event) => event.type === 'started' && event.attempt === attempt);
      worker.kill('SIGKILL');
      await worker.exited;
    }
    await spawn({ ROLE: 'worker' });
    expect(await client.untilEnded(id)).toMatchObject({
      status: 'failed',
      attempt: 2,
      error: { code: 'worker_lost', retryable: false },
    });
    const types = (await eventsOf(id)).map(({ type }) => type);
    expect(types.filter((type) => ['started', 'retrying', 'failed'].includes(type))).toEqual([
      ...['started', 'retrying', 'started', 'failed'],
    ]);
  });
});
