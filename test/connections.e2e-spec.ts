import type { Process } from '../src/processes/processes.schemas.js';
import { RawConnection } from './support/raw-connection.js';
import type { RunningServer } from '../src/server.js';
import { ApiClient } from './support/api-client.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { startBeside, startTestServer, type TestServer } from './support/test-server.js';

let runner: TestServer;

beforeAll(async () => {
  // It runs nothing.
  runner = await startTestServer({ ROLE: 'api' });
});
afterAll(() => runner.stop());

describe('a request that asks to upgrade to HTTP/2', () => {
  const H2C = ['Connection: keep-alive, Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk'];
  const authorization = () => `Authorization: Bearer ${runner.client.token!}`;
  let connection: RawConnection;

  beforeEach(async () => {
    connection = await RawConnection.open(runner.url);
  });
  afterEach(() => connection.close());

  it('is answered as plain HTTP/1.1, again and again on one connection', async () => {
    for (let round = 0; round < 3; round += 1) {
      connection.send('GET /api/v1/claude/processes HTTP/1.1', 'Host: x', authorization(), ...H2C, '', '');
      const { status, head, body } = await connection.answer();
      expect(status).toBe(200);
      expect(head).toMatch(/^connection: keep-alive/im);
      expect(JSON.parse(body)).toMatchObject({ nextCursor: null });
    }
  });

  it('may have a body, which comes when it is asked for', async () => {
    const body = JSON.stringify({ prompt: 'Wait.' });
    connection.send(
      'POST /api/v1/claude/execute/async HTTP/1.1',
      ...['Host: x', 'Content-Type: application/json', `Content-Length: ${body.length}`],
      ...['Expect: 100-continue', authorization(), ...H2C, '', ''],
    );
    expect(await connection.answer()).toMatchObject({ status: 100 });
    connection.send(body);
    const answer = await connection.answer();
    expect(answer.status).toBe(202);
    expect(JSON.parse(answer.body)).toMatchObject({ prompt: 'Wait.' } satisfies Partial<Process>);
  });

  it('may have a body that comes with it', async () => {
    const body = JSON.stringify({ prompt: '' });
    connection.send(
      'POST /api/v1/claude/execute HTTP/1.1',
      ...['Host: x', 'Content-Type: application/json', `Content-Length: ${body.length}`],
      ...[authorization(), ...H2C, '', body],
    );
    const answer = await connection.answer();
    expect(answer.status).toBe(400);
    expect(JSON.parse(answer.body)).toMatchObject({ code: 'validation_failed' });
  });

  it('may be one of Socket.IO by polling', async () => {
    connection.send('GET /socket.io/?EIO=4&transport=polling HTTP/1.1', 'Host: x', ...H2C, '', '');
    const { status, body } = await connection.answer();
    expect(status).toBe(200);
    expect(body).toMatch(/^0\{"sid"/);
  });
});

it('a WebSocket where there is none is refused as any unknown route', async () => {
  const connection = await RawConnection.open(runner.url);
  connection.send(
    'GET /nothing HTTP/1.1',
    ...['Host: x', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
    ...['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', '', ''],
  );
  const { status, body } = await connection.answer();
  expect([status, (JSON.parse(body) as { code: string }).code]).toEqual([404, 'route_not_found']);
  connection.close();
});

describe('what is no request', () => {
  let connection: RawConnection;

  beforeEach(async () => {
    connection = await RawConnection.open(runner.url);
  });
  afterEach(() => connection.close());

  it.each([
    ['is not HTTP', ['HELLO', '', ''], 400, 'bad_request'],
    ['has a header without a name', ['GET / HTTP/1.1', ': nameless', '', ''], 400, 'bad_request'],
    [
      'has too large headers',
      ['GET / HTTP/1.1', `X: ${'x'.repeat(20_000)}`, '', ''],
      431,
      'headers_too_large',
    ],
  ])('since it %s is answered as a problem', async (_, lines, status, code) => {
    connection.send(...lines);
    const answer = await connection.answer();
    expect(answer.head).toMatch(/^content-type: application\/problem\+json/im);
    expect(JSON.parse(answer.body)).toMatchObject({ status, code, instance: null });
    expect(answer.status).toBe(status);
  });
});

describe('a client that sends a byte at a time', () => {
  const BODY_FOLLOWS = [
    'POST /api/v1/claude/execute HTTP/1.1',
    ...['Host: x', 'Content-Type: application/json', 'Content-Length: 1000000', '', ''],
  ];
  let slow: RunningServer;

  /** Until the connection is closed. */
  const dribble = ({ socket }: RawConnection) => {
    const timer = setInterval(() => socket.write('a'), 100);
    socket.once('close', () => clearInterval(timer));
  };

  it.each([
    ['of its headers', ['GET /health/live HTTP/1.1', 'X-Slow: ']],
    ['of its body', BODY_FOLLOWS],
  ])('%s is cut off in time, and told why', async (_, lines) => {
    slow = await startBeside(runner, { REQUEST_TIMEOUT_MS: '500' });
    const connection = await RawConnection.open(slow.url);
    connection.send(...lines);
    dribble(connection);
    const { status, body } = await connection.answer();
    expect([status, (JSON.parse(body) as { code: string }).code]).toEqual([408, 'request_timeout']);
    await slow.close();
  });

  it('does not hold up the end of the server', async () => {
    slow = await startBeside(runner);
    const connection = await RawConnection.open(slow.url);
    connection.send(...BODY_FOLLOWS);
    dribble(connection);
    const isServed = async () => {
      const { body } = await new ApiClient(slow.url, runner.client.token).request('GET', '/health/live');
      return body;
    };
    await isServed();
    const began = performance.now();
    await slow.close();
    expect(performance.now() - began).toBeLessThan(9_000);
    expect(connection.socket.destroyed || (await closed(connection))).toBe(true);
  });

  const closed = ({ socket }: RawConnection) =>
    new Promise<boolean>((resolve) => socket.once('close', () => resolve(true)));
});

describe('a message of a socket', () => {
  it.each<[string, unknown]>([
    ['is binary', Buffer.alloc(1_000_000)],
    ['is a huge array', Array.from({ length: 1_000_000 }, () => 0)],
    ['holds a huge array', { prompt: 'x', tools: Array.from({ length: 1_000_000 }, () => 0) }],
    ['holds something binary', { prompt: Buffer.alloc(1_000_000) }],
  ])('that %s is refused, fast, and the next is heard', async (_, message) => {
    const socket = await RecordedSocket.connect(runner.client);
    const began = performance.now();
    const answer = await socket.ask('claude:execute', message);
    expect(answer).toMatchObject({ ok: false, error: { code: 'validation_failed' } });
    expect(performance.now() - began).toBeLessThan(5_000);
    expect(await socket.ask('claude:execute', { prompt: 'Wait.' })).toMatchObject({ ok: true });
    socket.close();
  });
});

describe('the end of a server', () => {
  it('is not the end of what its clients wanted to end with their connection', async () => {
    const ending = await startBeside(runner);
    const client = new ApiClient(ending.url, runner.client.token);
    const request = { prompt: 'Wait for me.', cancelOnDisconnect: true };
    const socket = await RecordedSocket.connect(client);
    const told = await socket.askFor('claude:execute', request);
    const waiting = client.execute(request);
    const isThere = async () => {
      const made = await runner.stores.query('SELECT 1 FROM processes WHERE prompt = $1', [request.prompt]);
      return made.length === 2;
    };
    while (!(await isThere()));
    await ending.close();
    const { status, body } = await waiting;
    expect(status).toBe(202);
    for (const { id } of [told, body])
      expect(await runner.client.find(id)).toMatchObject({ status: 'pending', cancelRequestedAt: null });
    socket.close();
  });
});

describe('in demo mode', () => {
  it('a tool input that is nested too deep for JSON ends its process, and not the server', async () => {
    const demo = await startTestServer({ ANTHROPIC_API_KEY: undefined, ANTHROPIC_BASE_URL: undefined });
    const depth = 20_000;
    const input = `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
    const { id } = await demo.client.submit({ prompt: `[[tool Glob ${input}]]`, timeoutMs: 20_000 });
    expect((await demo.client.untilEnded(id)).finishedAt).not.toBeNull();
    const next = await demo.client.execute({ prompt: '[[text Still here.]]' });
    expect(next).toMatchObject({ status: 200, body: { result: 'Still here.' } });
    await demo.stop();
  });
});
