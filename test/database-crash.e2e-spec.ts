import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type EmbeddedService, startEmbeddedPostgres } from '../libs/embedded-services/index.js';
import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { untilNoCliOf } from './support/cli-processes.js';
import { killAll, type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { createStores, type TestStores } from './support/stores.js';
import { startTcpProxy, type TcpProxy } from './support/tcp-proxy.js';
import { removeLeft } from './support/left-directory.js';

describe('after a kill -9 of PostgreSQL', () => {
  const directory = mkdtempSync(join(tmpdir(), 'claude-runner-postgres-'));
  let stores: TestStores;
  let messages: MessagesApi;
  /** A database of the test's own, and durable. */
  let postgres: EmbeddedService;
  let database: TcpProxy;
  let server: SpawnedServer;

  beforeAll(async () => {
    stores = await createStores();
    messages = await startMessagesApi();
    postgres = await startEmbeddedPostgres({ directory });
    database = await startTcpProxy(postgres.url);
    server = await spawnServer({
      DATABASE_URL: database.url,
      REDIS_URL: stores.redisUrl,
      ANTHROPIC_API_KEY: 'sk-ant-test',
      ANTHROPIC_BASE_URL: messages.url,
      WORKER_CONCURRENCY: '1',
      LEASE_TTL_MS: '12000',
      LEASE_FENCE_MS: '5000',
      LEASE_HEARTBEAT_MS: '500',
      RECONCILER_INTERVAL_MS: '300',
    });
  });
  afterAll(async () => {
    await killAll([server]);
    await database.close();
    await postgres.stop();
    await messages.close();
    await stores.drop();
    await removeLeft(directory);
  });

  it('nothing that was accepted is missing, nothing that was refused is there, and what waits runs', async () => {
    const client = server.client();
    const prompt = 'Hold the slot\n[[hang]]';
    const accepted = [await client.submit({ prompt })];
    await messages.waitForRequest((request) => request.prompt === prompt);
    const submitNext = () => {
      const next = { prompt: `Keep it\n[[text Kept ${accepted.length}.]]` };
      return client.request<Process>('POST', '/api/v1/claude/execute/async', next);
    };
    for (let n = 1; n < 5; n += 1) accepted.push((await submitNext()).body);

    const pid = Number(readFileSync(join(directory, 'data/postmaster.pid'), 'utf8').split('\n')[0]);
    process.kill(pid, 'SIGKILL');
    // What serves a connection may outlive its parent for a moment: then a submit is taken, and kept.
    let last = await submitNext();
    for (; last.status === 202; last = await submitNext()) accepted.push(last.body);
    expect(last).toMatchObject({ status: 503, body: { code: 'unavailable', retryable: true } });
    await untilNoCliOf(server.dataDirectory);
    postgres = await startEmbeddedPostgres({ directory });
    database.retarget(postgres.url);

    const ended = await Promise.all(accepted.map(({ id }) => client.untilEnded(id)));
    expect(ended[0]).toMatchObject({ status: 'failed', error: { code: 'worker_lost' } });
    expect(ended.slice(1).map(({ result }) => result)).toEqual(
      accepted.slice(1).map((_, index) => `Kept ${index + 1}.`),
    );
    const { items } = (
      await client.request<{ items: unknown[] }>('GET', '/api/v1/claude/processes?limit=100')
    ).body;
    expect(items).toHaveLength(accepted.length);
  });
});
