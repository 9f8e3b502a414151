import type { Process } from '../src/processes/processes.schemas.js';
import { RawConnection } from './support/raw-connection.js';
import { startTestServer, type TestServer } from './support/test-server.js';

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
