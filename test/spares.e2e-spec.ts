import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { Metrics } from '../src/metrics/metrics.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { ApiClient } from './support/api-client.js';
import { cliProcessesOf, countClisOf, untilNoCliOf } from './support/cli-processes.js';
import { eventually } from '../libs/claude-engine/test-support.js';
import { type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { createStores, type TestStores } from './support/stores.js';
import { ADMIN_PASSWORD } from './support/test-server.js';

const DEATH_BY_GUARD_MS = 5_000;

(process.platform === 'linux' ? describe : describe.skip)('CLIs that wait for what they are asked', () => {
  let stores: TestStores;
  let messages: MessagesApi;
  let servers: SpawnedServer[] = [];

  beforeEach(async () => {
    stores = await createStores();
    messages = await startMessagesApi();
  });
  afterEach(async () => {
    for (const server of servers) {
      server.kill('SIGKILL');
      await server.exited;
      await untilNoCliOf(server.dataDirectory);
      await server.remove();
    }
    servers = [];
    await messages.close();
    await stores.drop();
  });

  const spawn = async (environment: NodeJS.ProcessEnv) => {
    const server = await spawnServer({
      DATABASE_URL: stores.databaseUrl,
      REDIS_URL: stores.redisUrl,
      ADMIN_PASSWORD,
      ANTHROPIC_API_KEY: 'sk-ant-test',
      ANTHROPIC_BASE_URL: messages.url,
      CLAUDE_SESSION_IDLE_MS: '600000',
      // Nothing gives way: what is gone was ended.
      CLAUDE_MEMORY_BUDGET_MB: '100000',
      ...environment,
    });
    servers.push(server);
    return server;
  };
  const clisAre = (server: SpawnedServer, count: number) =>
    eventually(async () => (await countClisOf(server.dataDirectory)) === count);
  /** What the model was shown when it was asked last. */
  const shown = () => JSON.stringify(messages.requests.findLast(({ purpose }) => purpose === 'turn')?.body);
  const say = async (client: ApiClient, prompt: string, request: object = {}): Promise<Process> =>
    client.untilEnded((await client.submit({ prompt, ...request })).id);

  it('answer a new session and then its next turn, end with it, and do not outlive their worker', async () => {
    const server = await spawn({ CLAUDE_SPARES: '1' });
    const client = server.client();
    await clisAre(server, 1);
    const [spare] = await cliProcessesOf(server.dataDirectory);
    const first = await say(client, 'one\n[[usage in=1000 out=100]]\n[[text One]]');
    await clisAre(server, 2);
    const second = await say(client, 'two\n[[usage in=1000 out=100]]\n[[text Two]]', {
      sessionId: first.sessionId,
    });
    expect(shown()).toMatch(/One.*two/s);
    expect(second).toMatchObject({
      status: 'completed',
      result: 'Two',
      costUsd: first.costUsd,
      usage: first.usage,
    });
    expect(await cliProcessesOf(server.dataDirectory)).toContain(spare);

    const administrator = await ApiClient.login(server.url, 'admin@claude-runner.local', ADMIN_PASSWORD);
    const figures = async () =>
      (await administrator.request<Metrics>('GET', '/api/v1/claude/metrics?scope=all')).body;
    // What was announced in the middle of the second run says that it has none.
    await eventually(async () => {
      const { keptSessions } = await figures();
      return keptSessions?.hits === 1 && keptSessions.count === 1;
    });
    expect(await figures()).toMatchObject({ spares: { hits: 1, misses: 0 } });

    await client.request('DELETE', `/api/v1/claude/sessions/${first.sessionId}`);
    await eventually(async () => !(await cliProcessesOf(server.dataDirectory)).includes(spare ?? 0));
    await clisAre(server, 1);

    const hanging = await client.submit({ prompt: '[[hang]]' });
    await messages.waitForRequest(({ prompt }) => prompt === '[[hang]]');
    await client.cancel(hanging.id);
    expect(await client.untilEnded(hanging.id)).toMatchObject({ status: 'cancelled' });
    await clisAre(server, 1);

    await say(client, '[[text Kept]]');
    await clisAre(server, 2);
    server.kill('SIGKILL');
    await server.exited;
    expect((await untilNoCliOf(server.dataDirectory)).elapsedMs).toBeLessThan(DEATH_BY_GUARD_MS);
  });

  it('are no more used where the session has gone on at another worker', async () => {
    const worker = await spawn({ WORKER_CONCURRENCY: '1' });
    const client = worker.client();
    const one = await say(client, 'one\n[[text One]]');
    const { sessionId } = one;
    const [kept] = await cliProcessesOf(worker.dataDirectory);
    expect(kept).toBeDefined();
    const busy = await client.submit({ prompt: '[[hang]]' });
    await messages.waitForRequest(({ prompt }) => prompt === '[[hang]]');

    const another = await spawn({ ROLE: 'worker', WORKER_CONCURRENCY: '1' });
    const two = await say(client, 'two\n[[text Two]]', { sessionId });
    expect(await cliProcessesOf(worker.dataDirectory)).toContain(kept);
    await another.terminate();
    await client.cancel(busy.id);
    await client.untilEnded(busy.id);

    const three = await say(client, 'three\n[[text Three]]', { sessionId });
    expect(three).toMatchObject({ result: 'Three' });
    expect(shown()).toMatch(/One.*two.*Two.*three/s);
    await eventually(async () => !(await cliProcessesOf(worker.dataDirectory)).includes(kept ?? 0));

    // Nor where all that was said in it has been deleted.
    for (const { id } of [one, two, three])
      expect((await client.request('DELETE', `/api/v1/claude/processes/${id}/content`)).status).toBe(200);
    expect(await say(client, 'four\n[[text Four]]', { sessionId })).toMatchObject({ result: 'Four' });
    expect(shown()).not.toMatch(/text (One|Two|Three)/);
  });
});
