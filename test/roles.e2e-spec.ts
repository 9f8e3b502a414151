import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { ApiClient } from './support/api-client.js';
import { cliProcessesOf, untilNoCliOf } from './support/cli-processes.js';
import { killAll, type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { startProgram } from './support/started.js';
import { createStores, type TestStores } from './support/stores.js';

const LEASE_AND_SWEEP_MS = 15_000 + 2 * 2_000;

describe('servers as they are deployed', () => {
  let stores: TestStores;
  let messages: MessagesApi;
  let servers: SpawnedServer[] = [];

  beforeEach(async () => {
    stores = await createStores();
    messages = await startMessagesApi();
  });
  afterEach(async () => {
    await killAll(servers);
    servers = [];
    await messages.close();
    await stores.drop();
  });

  const spawn = async (environment: NodeJS.ProcessEnv = {}) => {
    const server = await spawnServer({
      DATABASE_URL: stores.databaseUrl,
      REDIS_URL: stores.redisUrl,
      ANTHROPIC_API_KEY: 'sk-ant-test',
      ANTHROPIC_BASE_URL: messages.url,
      ...environment,
    });
    servers.push(server);
    return server;
  };
  const isRunning = (process: Process) => messages.waitForRequest(({ prompt }) => prompt === process.prompt);
  const read = async (events: AsyncIterable<ProcessEvent>) => {
    const seen: ProcessEvent[] = [];
    for await (const event of events) seen.push(event);
    return seen;
  };

  it('share the work: what one API server takes in, a worker runs, and any API server streams', async () => {
    const api = await spawn({ ROLE: 'api' });
    const another = await spawn({ ROLE: 'api' });
    const client = api.client();
    const process = await client.submit({ prompt: 'Share it\n[[deltas 10 20]]' });
    expect(process.status).toBe('pending');
    const elsewhere = new ApiClient(another.url, client.token);
    const streams = [read(client.stream(process.id)), read(elsewhere.stream(process.id))];
    const socket = elsewhere.socket().connect();
    const told: ProcessEvent[] = [];
    socket.on('claude:progress', (event: ProcessEvent) => told.push(event));
    const complete = once(socket as never, 'claude:complete');
    await once(socket as never, 'connect');
    await socket.emitWithAck('claude:status', { processId: process.id, after: 0 });

    await spawn({ ROLE: 'worker' });
    const [here, there] = await Promise.all(streams);
    await complete;
    socket.close();
    expect(here?.at(-1)).toMatchObject({ type: 'completed' });
    expect(here?.map(({ seq }) => seq)).toEqual(here?.map((_, index) => index + 1));
    expect(there).toEqual(here);
    expect(told).toEqual(here);
  });

  it('a worker serves nothing but its health', async () => {
    const worker = await spawn({ ROLE: 'worker' });
    expect((await fetch(`${worker.url}/health/ready`)).status).toBe(200);
    expect((await fetch(`${worker.url}/api/v1/claude/health`)).status).toBe(404);
  });

  it('what still waits when a server stops is run by the next one', async () => {
    const api = await spawn({ ROLE: 'api' });
    const process = await api.client().submit({ prompt: 'Wait for it\n[[text Here.]]' });
    expect(await api.terminate()).toMatchObject({ code: 0 });
    const next = await spawn();
    const client = new ApiClient(next.url, api.client().token);
    expect(await client.untilEnded(process.id)).toMatchObject({
      status: 'completed',
      result: 'Here.',
      attempt: 1,
    });
  });

  it('told to stop lets what runs end, answers who waits, resets who streams, and takes nothing new', async () => {
    const server = await spawn({ SHUTDOWN_GRACE_MS: '60000', LOG_LEVEL: 'info' });
    const client = server.client();
    const prompt = 'Let it end\n[[delay 12000]]\n[[text It ended.]]';
    const waiting = client.execute({ prompt });
    await messages.waitForRequest((request) => request.prompt === prompt);
    const { items } = (await client.request<{ items: Process[] }>('GET', '/api/v1/claude/processes')).body;
    const id = items[0]?.id ?? '';
    const stream = client.stream(id);
    await stream.next();
    const rest = read(stream);

    server.kill('SIGTERM');
    expect(await waiting).toMatchObject({ status: 202, body: { id, status: 'running' } });
    await expect(rest).rejects.toThrow();
    const refused = await client.request('POST', '/api/v1/claude/execute/async', { prompt: 'One more' });
    expect(refused).toMatchObject({ status: 503, body: { code: 'draining', retryable: true } });
    expect((await fetch(`${server.url}/health/ready`)).status).toBe(503);
    expect((await fetch(`${server.url}/health/live`)).status).toBe(200);
    expect(await server.exited).toEqual({ code: 0, signal: null });
    const told = server.lines.filter((line) => line.includes('draining'));
    expect(told.map((line) => (JSON.parse(line) as { level: number }).level)).toEqual([30, 30]);
    expect(server.lines.filter((line) => /"level":[56]0|"stack"/.test(line))).toEqual([]);

    const rows = await stores.query('SELECT status, result FROM processes');
    expect(rows).toEqual([{ status: 'completed', result: 'It ended.' }]);
  });

  it('told to stop answers who waits at a server that runs nothing itself, too', async () => {
    const api = await spawn({ ROLE: 'api' });
    const waiting = api.client().execute({ prompt: 'Nobody runs it' });
    while ((await stores.query('SELECT 1 FROM processes')).length === 0);
    expect(await api.terminate()).toMatchObject({ code: 0 });
    expect(await waiting).toMatchObject({ status: 202, body: { status: 'pending' } });
  });

  it('told to stop ends what outlasts the grace in an honest state, and leaves no CLI', async () => {
    const server = await spawn({ SHUTDOWN_GRACE_MS: '200' });
    const process = await server.client().submit({ prompt: 'Outlast it\n[[hang]]' });
    await isRunning(process);
    expect(await server.terminate()).toMatchObject({ code: 0 });
    expect(await cliProcessesOf(server.dataDirectory)).toEqual([]);
    const next = await spawn({ ROLE: 'api' });
    expect(await new ApiClient(next.url, server.client().token).find(process.id)).toMatchObject({
      status: 'failed',
      error: { code: 'worker_lost', retryable: true },
    });
  });

  it('told twice does not wait', async () => {
    const server = await spawn({ SHUTDOWN_GRACE_MS: '600000' });
    await isRunning(await server.client().submit({ prompt: 'Hurry\n[[hang]]' }));
    server.kill('SIGTERM');
    while ((await fetch(`${server.url}/health/ready`)).status !== 503);
    server.kill('SIGTERM');
    expect(await server.exited).toEqual({ code: 0, signal: null });
  });

  it('after a kill -9 of a worker its process is given up once the lease is over, and the next start ends its CLI', async () => {
    const api = await spawn({ ROLE: 'api' });
    const worker = await spawn({ ROLE: 'worker' });
    const client = api.client();
    const process = await client.submit({ prompt: 'Lose it\n[[hang]]' });
    await isRunning(process);
    const killedAt = Date.now();
    worker.kill('SIGKILL');
    await worker.exited;
    expect(await client.untilEnded(process.id)).toMatchObject({
      status: 'failed',
      error: { code: 'worker_lost' },
    });
    // Wide, since this is no benchmark; without the lease it would never end.
    expect(Date.now() - killedAt).toBeLessThan(2 * LEASE_AND_SWEEP_MS);
    await spawn({ ROLE: 'worker', DATA_DIR: worker.dataDirectory });
    const again = await client.submit({ prompt: 'Go on\n[[text On.]]' });
    expect(await client.untilEnded(again.id)).toMatchObject({ status: 'completed' });
    await untilNoCliOf(worker.dataDirectory);
  });

  describe('that cannot start', () => {
    const start = (environment: NodeJS.ProcessEnv) =>
      startProgram(['dist/src/main.js'], { PORT: '0', LOG_LEVEL: 'fatal', ...environment });
    const stored = () => ({ DATABASE_URL: stores.databaseUrl, REDIS_URL: stores.redisUrl });

    it.each<[string, NodeJS.ProcessEnv, RegExp]>([
      ['a wrong value', { PORT: 'http' }, /^PORT: /],
      ['no stores', {}, /^DATABASE_URL: .*npm start/],
      ['demo mode in production', { NODE_ENV: 'production' }, /^ANTHROPIC_API_KEY: .*demo mode/],
      [
        'a database that is not there',
        {
          DATABASE_URL: 'postgresql://x@127.0.0.1:1/x',
          REDIS_URL: 'redis://x',
          START_PATIENCE_MS: '1000',
        },
        /^DATABASE_URL: .*ECONNREFUSED/,
      ],
    ])('with %s say so in a line that names it, and end', async (_, environment, line) => {
      const program = start(environment);
      expect(await program.exited).toMatchObject({ code: 1 });
      expect(program.lines.some((said) => line.test(said))).toBe(true);
    });

    it('with a CLAUDE_MCP_CONFIG that is not in UTF-8 say so', async () => {
      const directory = mkdtempSync(join(tmpdir(), 'claude-runner-mcp-'));
      const file = join(directory, 'mcp.json');
      const content = '{"mcpServers":{"notes":{"command":"/bin/true","args":["\u00fc"]}}}';
      writeFileSync(file, Buffer.from(content, 'latin1'));
      const program = start({ ...stored(), CLAUDE_MCP_CONFIG: file });
      expect(await program.exited).toMatchObject({ code: 1 });
      expect(program.lines).toEqual(['CLAUDE_MCP_CONFIG: the file is not in UTF-8']);
      rmSync(directory, { recursive: true });
    });

    it('on a port that is taken say so', async () => {
      const squatter = createServer().listen(0, '127.0.0.1');
      await once(squatter, 'listening');
      const address = squatter.address();
      const program = start({ ...stored(), PORT: String(typeof address === 'object' ? address?.port : '') });
      expect(await program.exited).toMatchObject({ code: 1 });
      expect(program.lines.join('\n')).toContain('cannot listen there (EADDRINUSE)');
      squatter.close();
    });

    it('on a database that nobody migrated, which they were told not to do, say what to do', async () => {
      const program = start({ ...stored(), MIGRATE_ON_START: 'false' });
      expect(await program.exited).toMatchObject({ code: 1 });
      expect(program.lines.join('\n')).toMatch(/DATABASE_URL: .*prisma migrate deploy/);
    });
  });
});
