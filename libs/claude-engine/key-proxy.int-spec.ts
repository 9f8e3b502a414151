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
      'anthropic-beta': 'effort-2025-11-24',
    };
    const answer = await ask(proxy, '/v1/messages?beta=true', { headers, body: '{"model":"a"}' });
    expect([answer.status, answer.headers.get('request-id'), await answer.text()]).toEqual([
      203,
      'r1',
      'answer',
    ]);
    expect(seen).toHaveLength(1);
    const [{ request, body }] = seen as [(typeof seen)[0]];
    expect([request.method, request.url, body]).toEqual([
      'POST',
      '/prefix/v1/messages?beta=true',
      '{"model":"a"}',
    ]);
    expect(request.headers).toMatchObject({
      'x-api-key': KEY,
      'anthropic-beta': 'effort-2025-11-24',
      host: new URL(api.url).host,
    });
    expect(JSON.stringify(request.headers)).not.toContain(proxy.token);
    expect(proxy.traffic).toEqual({
      requests: 1,
      refused: 0,
      sentBytes: 13,
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
    const others = ['{"model":"claude-c"}', '{}', '{"model":["claude-a"]}'];
    const fallbacks = ['"default"', '[{"model":"claude-c"}]'].map(
      (models) => `{"model":"claude-a","fallbacks":${models}}`,
    );
    for (const body of [...others, ...fallbacks]) {
      const answer = await ask(proxy, undefined, { body });
      expect(answer.status).toBe(404);
      expect(await answer.json()).toMatchObject({ type: 'error', error: { type: 'not_found_error' } });
    }
    await proxy.close();
    await api.close();
  });

  it.each<[string, string]>([
    [
      'a server that the API would call',
      '{"mcp_servers":[{"type":"url","url":"https://x.example","name":"x"}]}',
    ],
    ['the same beside one that it might read instead', '{"mcp_servers":[],"mcp_servers":null}'],
    ['a container', '{"container":"c"}'],
    ['what nobody knows', '{"webhook":"https://x.example"}'],
    ['a tool of the API', '{"tools":[{"name":"a"},{"type":"web_fetch_20250910","name":"web_fetch"}]}'],
    ['code that the API would run', '{"tools":[{"type":"code_execution_20250825","name":"code_execution"}]}'],
    ['the tools of a server', '{"tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]}'],
    [
      'a tool that is added later',
      '{"messages":[{"role":"system","content":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"type":"web_search_20260318","name":"web_search"}}}]}]}',
    ],
    [
      'a picture by its address',
      '{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://x.example"}}]}]}',
    ],
    [
      'the same in the result of a tool',
      '{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"document","source":{"type":"url","url":"https://x.example"}}]}]}]}',
    ],
    [
      'a file that is kept there',
      '{"messages":[{"role":"user","content":[{"type":"container_upload","file_id":"f"}]}]}',
    ],
    ['what is no JSON', '{'],
    ['a list', '[]'],
    ['what goes too deep', `{"messages":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
  ])('does not pass on %s', async (_, body) => {
    const api = await serve((_request, response) => response.end());
    const told: string[] = [];
    const proxy = await open(api.url, { onForbidden: (reason) => told.push(reason) });
    for (let times = 0; times < 2; times += 1) {
      const answer = await ask(proxy, undefined, { body });
      expect([answer.status, await answer.json()]).toMatchObject([
        400,
        { error: { type: 'invalid_request_error' } },
      ]);
    }
    expect(proxy.traffic).toMatchObject({ requests: 2, refused: 2, sentBytes: 0 });
    expect(told).toHaveLength(1);
    await proxy.close();
    await api.close();
  });

  it('asks nothing for what is not held any more by the time it would be passed on', async () => {
    let asked = 0;
    const api = await serve((_request, response) => {
      asked += 1;
      response.end();
    });
    let isHeld = true;
    const proxy = await open(api.url, { mayAsk: () => Promise.resolve(isHeld) });
    const body = new ReadableStream({
      pull: (controller) => {
        // The headers are there, and were read while it was held.
        isHeld = false;
        controller.enqueue(Buffer.from('{}'));
        controller.close();
      },
    });
    const answer = await ask(proxy, '/v1/messages', { body, duplex: 'half' });
    expect([answer.status, asked]).toEqual([403, 0]);
    expect((await ask(proxy, '/', { method: 'HEAD', body: null })).status).toBe(200);
    await proxy.close();
    await api.close();
  });

  it('passes on of the headers what a CLI needs, and one meaning of a name that is there twice', async () => {
    const seen: { headers: http.IncomingHttpHeaders; body: string }[] = [];
    const api = await serve((request, response) => {
      let body = '';
      request.on('data', (chunk: Buffer) => (body += chunk.toString()));
      request.on('end', () => {
        seen.push({ headers: request.headers, body });
        response.end();
      });
    });
    const proxy = await open(api.url);
    await ask(proxy, undefined, {
      headers: {
        'x-api-key': proxy.token,
        'anthropic-beta':
          'mcp-client-2025-11-20, claude-code-20250219,effort-2025-11-24,code-execution-2025-08-25',
        'x-cc-internal-tool-provenance-server-url': 'https://x.example',
        'anthropic-workspace-id': 'w',
        'x-app': 'cli',
      },
      body: '{"tools":[{"type":"web_fetch_20250910","name":"x"}],"tools":[{"name":"x"}],"model":"m"}',
    });
    expect(JSON.parse(seen[0]!.body)).toEqual({ tools: [{ name: 'x' }], model: 'm' });
    expect(seen[0]!.body).not.toContain('web_fetch');
    expect(seen[0]!.headers).toMatchObject({
      'anthropic-beta': 'claude-code-20250219,effort-2025-11-24',
      'x-app': 'cli',
    });
    expect(Object.keys(seen[0]!.headers).filter((name) => /^x-cc|workspace/.test(name))).toEqual([]);
    await proxy.close();
    await api.close();
  });

  it('holds no more of what is sent at once than two of the largest bodies', async () => {
    const api = await serve((request, response) => request.resume().on('end', () => response.end('ok')));
    const proxy = await open(api.url);
    const { port } = new URL(proxy.url);
    const headers = { 'x-api-key': proxy.token, 'content-length': 31 * 1024 * 1024 };
    const begun = Array.from({ length: 3 }, () => {
      const request = http.request({ port, path: '/v1/messages', method: 'POST', headers });
      request.write(Buffer.alloc(30 * 1024 * 1024, ' '));
      return request;
    });
    const answers = begun.map(async (request) => {
      const [answer] = (await once(request, 'response')) as [IncomingMessage];
      answer.resume();
      return answer.statusCode;
    });
    await eventually(() => begun.every(({ writableLength }) => writableLength === 0));
    for (const request of begun) request.end(Buffer.alloc(1024 * 1024, ' '));
    expect((await Promise.all(answers)).toSorted()).toEqual([400, 400, 429]);
    expect((await ask(proxy)).status).toBe(200);
    await proxy.close();
    await api.close();
  });

  it('counts the tokens of what passes, however it comes in pieces', async () => {
    const start = { type: 'message_start', message: { usage: { input_tokens: 7, output_tokens: 1 } } };
    const delta = { type: 'message_delta', usage: { output_tokens: 30, cache_read_input_tokens: 5 } };
    const stream = [start, { type: 'ping', usage: { input_tokens: 1e300, output_tokens: -4 } }, delta]
      .map((event) => `event: x\ndata: ${JSON.stringify(event)}\n\n`)
      .join('');
    const api = await serve((request, response) => {
      request.resume();
      if (request.url?.includes('whole')) {
        response.end(JSON.stringify({ usage: { input_tokens: 100, output_tokens: 200 } }));
        return;
      }
      response.setHeader('content-type', 'text/event-stream; charset=utf-8');
      const step = (at: number): void => {
        if (at >= stream.length) response.end();
        else response.write(stream.slice(at, at + 9), () => step(at + 9));
      };
      step(0);
    });
    const proxy = await open(api.url);
    await (await ask(proxy)).text();
    const once = { inputTokens: 7, outputTokens: 30, cacheReadInputTokens: 5, cacheCreationInputTokens: 0 };
    expect(proxy.usage).toEqual(once);
    await (await ask(proxy, '/v1/messages?whole')).text();
    expect(proxy.usage).toEqual({ ...once, inputTokens: 107, outputTokens: 230 });
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
    let retryAfter = '60';
    const api = await serve((request, response) => {
      request.resume().on('end', () => response.writeHead(429, { 'retry-after': retryAfter }).end());
    });
    const proxy = await open(api.url);
    expect(proxy.retryAfterMs).toBeNull();
    await ask(proxy);
    expect(proxy.retryAfterMs).toBeGreaterThan(30_000);
    expect(proxy.retryAfterMs).toBeLessThanOrEqual(60_000);
    retryAfter = new Date(Date.now() + 600_000).toUTCString();
    await ask(proxy);
    expect(proxy.retryAfterMs).toBeGreaterThan(500_000);
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
