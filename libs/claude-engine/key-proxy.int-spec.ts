import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { type AddressInfo, connect, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type EngineNotice } from './index.js';
import { KeyProxy, type KeyProxyOptions } from './key-proxy.js';
import { EngineBench, eventually, KEY } from './test-support.js';
import { Upstream } from './upstream.js';

/** An API that answers as a test wants it. */
async function serve(
  answer: http.RequestListener,
  tls?: https.ServerOptions,
): Promise<{ url: string; server: http.Server; close: () => Promise<void> }> {
  const server = tls ? https.createServer(tls, answer) : http.createServer(answer);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
  return { url: `${tls ? 'https' : 'http'}://localhost:${port}`, server, close };
}

const open = (baseUrl: string, options: Partial<KeyProxyOptions> = {}) =>
  KeyProxy.open({
    upstream: new Upstream({ anthropic: { baseUrl, apiKey: KEY } }),
    folder: null,
    ...options,
  });

const ask = (proxy: KeyProxy, path = '/v1/messages', init: RequestInit = {}) =>
  fetch(proxy.url + path, { method: 'POST', headers: { 'x-api-key': proxy.token }, body: '{}', ...init });

describe('the key proxy', () => {
  it('puts the key in the place of the token, and passes on the rest', async () => {
    const seen: { request: IncomingMessage; body: string }[] = [];
    const api = await serve((request, response) => {
      let body = '';
      request.on('data', (chunk: Buffer) => (body += chunk.toString()));
      request.on('end', () => {
        seen.push({ request, body });
        response.writeHead(203, { 'request-id': 'r1' }).end('answer');
      });
    });
    const proxy = await open(`${api.url}/prefix/`);
    const headers = {
      'x-api-key': proxy.token,
      authorization: `Bearer ${proxy.token}`,
      'anthropic-beta': 'b',
    };
    const answer = await ask(proxy, '/v1/messages?beta=true', { headers, body: '{"a":1}' });
    expect([answer.status, answer.headers.get('request-id'), await answer.text()]).toEqual([
      203,
      'r1',
      'answer',
    ]);
    expect(seen).toHaveLength(1);
    const [{ request, body }] = seen as [(typeof seen)[0]];
    expect([request.method, request.url, body]).toEqual(['POST', '/prefix/v1/messages?beta=true', '{"a":1}']);
    expect(request.headers).toMatchObject({
      'x-api-key': KEY,
      'anthropic-beta': 'b',
      host: new URL(api.url).host,
    });
    expect(JSON.stringify(request.headers)).not.toContain(proxy.token);
    expect(proxy.traffic).toEqual({
      requests: 1,
      refused: 0,
      sentBytes: 7,
      receivedBytes: 6,
      firstByteMs: [expect.any(Number)],
    });
    await proxy.close();
    await api.close();
  });

  it.each([
    ['no token', {}, '/v1/messages', 401],
    ["another launch's token", { 'x-api-key': 'launch-else' }, '/v1/messages', 401],
    ['a way that a CLI needs not', null, '/v1/organizations', 404],
    ['the same by another spelling', null, '/v1/messages/../organizations', 404],
  ] as const)('refuses %s', async (_, headers, path, status) => {
    const api = await serve((_request, response) => response.end());
    const proxy = await open(api.url);
    const { port } = new URL(proxy.url);
    // Not by fetch, which would tidy the path.
    const request = http.request({
      port,
      path,
      method: 'POST',
      headers: headers ?? { 'x-api-key': proxy.token },
    });
    const [answer] = (await once(request.end('{}'), 'response')) as [IncomingMessage];
    expect(answer.statusCode).toBe(status);
    answer.resume();
    expect(proxy.traffic).toMatchObject({ requests: 1, refused: 1, sentBytes: 0 });
    await proxy.close();
    await api.close();
  });

  it('asks for no model but those that are offered', async () => {
    const api = await serve((request, response) => request.resume().on('end', () => response.end('ok')));
    const proxy = await open(api.url, { models: ['claude-a', 'claude-b'] });
    expect((await ask(proxy, undefined, { body: '{"model":"claude-b"}' })).status).toBe(200);
    for (const body of ['{"model":"claude-c"}', '{}', '{', '[]', '{"model":["claude-a"]}']) {
      const answer = await ask(proxy, undefined, { body });
      expect(answer.status).toBe(404);
      expect(await answer.json()).toMatchObject({ type: 'error', error: { type: 'not_found_error' } });
    }
    await proxy.close();
    await api.close();
  });

  it('streams: what has come is handed on, and a slow reader slows the API down', async () => {
    const chunk = Buffer.alloc(64 * 1024, 'x');
    let hasWaited = false;
    const api = await serve((request, response) => {
      request.resume();
      response.write('first');
      const pour = () => {
        while (response.write(chunk)) if (response.destroyed) return;
        hasWaited = true;
        response.once('drain', pour);
      };
      setImmediate(pour);
    });
    const proxy = await open(api.url);
    const { port } = new URL(proxy.url);
    const request = http.request({
      port,
      path: '/v1/messages',
      method: 'POST',
      headers: { 'x-api-key': proxy.token },
    });
    const [answer] = (await once(request.end('{}'), 'response')) as [IncomingMessage];
    const [first] = (await once(answer, 'data')) as [Buffer];
    expect(first.toString().startsWith('first')).toBe(true);
    answer.pause();
    await eventually(() => hasWaited);
    let received = -1;
    await eventually(() => {
      const isStill = received === proxy.traffic.receivedBytes;
      received = proxy.traffic.receivedBytes;
      return isStill;
    });
    expect(received).toBeLessThan(32 * 1024 * 1024);
    // Whoever leaves leaves the API as well.
    answer.destroy();
    await eventually(async () => (await promisify(api.server.getConnections.bind(api.server))()) === 0);
    await proxy.close();
    await api.close();
  });

  it('says so when the API cannot be reached, and breaks off where it breaks off', async () => {
    const nowhere = await open('http://127.0.0.1:9');
    const answer = await ask(nowhere);
    expect([answer.status, await answer.json()]).toMatchObject([502, { error: { type: 'api_error' } }]);
    await nowhere.close();

    const api = await serve((request, response) => {
      request.resume();
      response.write('half an', () => response.destroy());
    });
    const proxy = await open(api.url);
    await expect(ask(proxy).then((broken) => broken.text())).rejects.toThrow();
    await proxy.close();
    await api.close();
  });

  it('remembers how long a 429 asks to wait', async () => {
    let retryAfter = '7';
    const api = await serve((request, response) => {
      request.resume().on('end', () => response.writeHead(429, { 'retry-after': retryAfter }).end());
    });
    const proxy = await open(api.url);
    expect(proxy.retryAfterMs).toBeNull();
    await ask(proxy);
    expect(proxy.retryAfterMs).toBeGreaterThan(5000);
    expect(proxy.retryAfterMs).toBeLessThanOrEqual(7000);
    retryAfter = new Date(Date.now() + 60_000).toUTCString();
    await ask(proxy);
    expect(proxy.retryAfterMs).toBeGreaterThan(50_000);
    await proxy.close();
    await api.close();
  });

  it('ends with its launch: what is on its way is broken off, and nobody is let in', async () => {
    const api = await serve(() => undefined);
    const proxy = await open(api.url);
    const { port } = new URL(proxy.url);
    const asked = ask(proxy).then(
      () => 'answered',
      () => 'broken off',
    );
    await eventually(() => proxy.traffic.requests === 1);
    await proxy.close();
    expect(await asked).toBe('broken off');
    await expect(once(connect(Number(port)), 'connect')).rejects.toThrow('ECONNREFUSED');
    await api.close();
  });
});

/** Of `localhost`, signed by itself, for a hundred years; it guards nothing. */
const TLS = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLAvGp073ZHqYc2i7
hdFKFJlIswMnZjnSjaiJEBtZMGChRANCAARtrgOEw7ReeJ7bUKlL1K3LENlCNBNn
737oHvDjPRScIlEoDSHqBFtPSx+VO8HLrXw10VRsShA5HQ6u1NLUPx2G
-----END PRIVATE KEY-----
`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUGT7hNpMEYWeco9UqVw3tyCcM0EkwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNTIwMjI0N1oYDzIxMjYxMTAx
MjAyMjQ3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARtrgOEw7ReeJ7bUKlL1K3LENlCNBNn737oHvDjPRScIlEoDSHqBFtP
Sx+VO8HLrXw10VRsShA5HQ6u1NLUPx2Go2kwZzAdBgNVHQ4EFgQU5CIUwroNhs11
eE/9j6Vo2ArM8ZQwHwYDVR0jBBgwFoAU5CIUwroNhs11eE/9j6Vo2ArM8ZQwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIhANUrI8WU5JOhQqlKZu+huAtt4IODdHjy9DpdhqKd+izsAiA6gGInSIIO
Av2hSF8LmbfzvelFI/GzDL6DcRtqd1nB2g==
-----END CERTIFICATE-----
`,
};

describe('the way to the Messages API', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'upstream-'));
    await writeFile(join(folder, 'cert.pem'), TLS.cert);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** An HTTP proxy that lets through who has the right credentials. */
  async function tunnel(): Promise<{ server: Server; port: number; targets: string[] }> {
    const targets: string[] = [];
    const server = http.createServer();
    server.on(
      'connect',
      (request: IncomingMessage, socket: NodeJS.WritableStream & NodeJS.ReadableStream) => {
        targets.push(`${request.url ?? ''} ${request.headers['proxy-authorization'] ?? ''}`);
        const onward = connect(Number(request.url?.split(':')[1]), '127.0.0.1', () => {
          socket.write('HTTP/1.1 200 OK\r\n\r\n');
          onward.pipe(socket).pipe(onward);
        });
        onward.on('error', () => socket.end());
        socket.on('error', () => onward.destroy());
      },
    );
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { server, port: (server.address() as AddressInfo).port, targets };
  }

  it.each([
    ['', true],
    ['elsewhere.example, 10.0.0.1', true],
    ['localhost:1', true],
    ['localhost', false],
    ['*', false],
  ])(
    'leads through the proxy, with further authorities, unless NO_PROXY says %j',
    async (noProxy, isProxied) => {
      const api = await serve(
        (request, response) => request.resume().on('end', () => response.end('secret')),
        TLS,
      );
      const way = await tunnel();
      const httpsProxy = `http://me:p%40ss@127.0.0.1:${way.port}`;
      const network = { httpsProxy, noProxy, extraCaCerts: join(folder, 'cert.pem') };
      const upstream = new Upstream({ anthropic: { baseUrl: api.url, apiKey: KEY }, network });
      const proxy = await open(api.url, { upstream });
      expect(await (await ask(proxy)).text()).toBe('secret');
      const credentials = Buffer.from('me:p@ss').toString('base64');
      const target = `${new URL(api.url).host} Basic ${credentials}`;
      expect(way.targets).toEqual(isProxied ? [target] : []);
      await proxy.close();
      upstream.close();
      way.server.close();
      await api.close();
    },
  );

  it('is not taken where the certificate is not known', async () => {
    const api = await serve((_request, response) => response.end('secret'), TLS);
    const proxy = await open(api.url);
    expect((await ask(proxy)).status).toBe(502);
    await proxy.close();
    await api.close();
  });
});

describe('a run', () => {
  it('tells how long the API asked to wait when it gives up', async () => {
    const bench = await EngineBench.open({ apiMaxRetries: 0 });
    const run = await bench.run({ prompt: '[[status 429 retry-after=42]]' });
    const ending = await run.ending();
    expect(ending).toMatchObject({ kind: 'failed', error: { code: 'upstream_rate_limited' } });
    const { retryAfterMs } = (ending as { error: { retryAfterMs: number } }).error;
    expect(retryAfterMs).toBeGreaterThan(20_000);
    expect(retryAfterMs).toBeLessThanOrEqual(42_000);
    await bench.close();
  });

  it('is metered, and its model is one of those that are offered', async () => {
    const bench = await EngineBench.open({ models: ['claude-sonnet-5'] });
    const allowed = await bench.run({ model: 'claude-sonnet-5', prompt: '[[text Yes]]' });
    expect(await allowed.ending()).toMatchObject({ kind: 'completed', result: 'Yes' });
    const refused = await bench.run({ model: 'claude-opus-5-5' });
    expect(await refused.ending()).toMatchObject({
      kind: 'failed',
      error: { code: 'upstream_invalid_request' },
    });
    await bench.allGone();
    const traffic = bench.notices.filter(
      (notice): notice is Extract<EngineNotice, { kind: 'launch_traffic' }> =>
        notice.kind === 'launch_traffic',
    );
    expect(traffic.map(({ requests, refused: no }) => [requests > 0, no > 0])).toEqual([
      [true, false],
      [true, true],
    ]);
    expect(traffic[0]?.sentBytes).toBeGreaterThan(1000);
    expect(traffic[0]?.receivedBytes).toBeGreaterThan(100);
    expect(bench.api.requests.every(({ model }) => model === 'claude-sonnet-5' || model === null)).toBe(true);
    await bench.close();
  });
});
