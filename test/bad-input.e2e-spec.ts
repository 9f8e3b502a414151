/* eslint jest/expect-expect: ["error", { "assertFunctionNames": ["expect*", "postJson"] }] */
import { createHmac, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import type { Socket } from 'socket.io-client';
import { makeApiKey } from '../src/auth/api-key-format.js';
import { type Problem, ProblemSchema } from '../src/platform/errors/errors.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { ApiClient } from './support/api-client.js';
import { RawConnection } from './support/raw-connection.js';
import { startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser } from './support/users.js';

const EXECUTE = '/api/v1/claude/execute';
const PROCESSES = '/api/v1/claude/processes';
const MIB = 1024 * 1024;

let runner: TestServer;
let socket: Socket;
/** Waits for ever: this server runs nothing. */
let waiting: Process;

beforeAll(async () => {
  runner = await startTestServer({ ROLE: 'api' });
  waiting = await runner.client.submit({ prompt: 'Wait.' });
  socket = await connect(runner.client);
});
afterAll(async () => {
  socket.disconnect();
  await runner.stop();
});

interface Refusal {
  status: number;
  code: string;
  /** Of the first of `errors`; none where it is left out. */
  pointer?: string;
  issue?: string;
  /** What the detail speaks of. */
  detail?: RegExp;
}

/** A request that is refused before anything comes of it. */
interface Fault extends Refusal {
  name: string;
}

const invalid = (pointer: string, issue?: string): Refusal => ({
  status: 400,
  code: 'validation_failed',
  pointer,
  ...(issue === undefined ? {} : { issue }),
});
const NOT_JSON: Refusal = { status: 400, code: 'invalid_json' };
const BAD_CURSOR: Refusal = { status: 400, code: 'cursor_invalid' };
const UNAUTHENTICATED: Refusal = { status: 401, code: 'unauthenticated' };
const NOT_ALLOWED: Refusal = { status: 405, code: 'method_not_allowed' };
const NO_ROUTE: Refusal = { status: 404, code: 'route_not_found' };

const nested = (depth: number): object => (depth === 0 ? {} : { not: nested(depth - 1) });

const named = <T extends { name: string }>(cases: T[]) => cases.map((each) => [each.name, each] as const);

/** What would help an attacker, or nobody: paths of this machine, SQL, stacks. */
const LEAK =
  /\/(?:work|tmp|home|root|usr|var)\/|node_modules|\.[cm]?[jt]s:\d|\n\s*at |prisma|postgres|\b(?:SELECT|INSERT|UPDATE) |ECONN/i;

function expectProblem(body: unknown, { status, code, pointer, issue, detail = /./ }: Refusal): Problem {
  const problem = ProblemSchema.strict().parse(body);
  expect(problem).toMatchObject({ status, code, type: `urn:claude-runner:error:${code}` });
  expect(problem.requestId).toMatch(/^[\w.-]{10,}$/);
  expect(problem.instance).toEqual(expect.any(String));
  expect(problem.detail).toMatch(detail);
  expect(problem.errors[0]?.pointer).toBe(pointer);
  if (issue !== undefined) expect(problem.errors[0]?.code).toBe(issue);
  expect(JSON.stringify(problem)).not.toMatch(LEAK);
  return problem;
}

/** Sends what it is given, as it is given, and expects a problem of that kind. */
async function expectRefused(
  method: string,
  path: string,
  refusal: Refusal,
  {
    body,
    headers = {},
    client = runner.client,
  }: { body?: string | Uint8Array<ArrayBuffer>; headers?: Record<string, string>; client?: ApiClient } = {},
): Promise<Problem> {
  const response = await writingNothing(() =>
    client.fetch(path, { method, headers, ...(body === undefined ? {} : { body }) }),
  );
  expect(response.status).toBe(refusal.status);
  expect(response.headers.get('content-type')).toMatch(/^application\/problem\+json\b/);
  const problem = expectProblem(await response.json(), refusal);
  expect(problem.instance).toBe(path.split('?', 1)[0]);
  return problem;
}

const postJson = (path: string, json: string, refusal: Refusal) =>
  expectRefused('POST', path, refusal, { body: json, headers: { 'Content-Type': 'application/json' } });

/** Does something, and expects it to leave every process as it was. */
async function writingNothing<T>(act: () => Promise<T>): Promise<T> {
  const before = await runner.stores.query('SELECT * FROM processes');
  const result = await act();
  expect(await runner.stores.query('SELECT * FROM processes')).toEqual(before);
  return result;
}

/** What comes with the next event of that name. */
const heard = <Told>(on: Socket, event: string): Promise<Told> =>
  new Promise((resolve) => on.once(event, resolve));

async function connect(client: ApiClient): Promise<Socket> {
  const connecting = client.socket();
  const connected = heard(connecting, 'connect');
  connecting.connect();
  await connected;
  return connecting;
}

/** Sends a message with these arguments, and expects its ack to be a problem of that kind. */
async function expectMessageRefused(event: string, args: unknown[], refusal: Refusal): Promise<Problem> {
  const answer = (await writingNothing(() => socket.timeout(60_000).emitWithAck(event, ...args))) as {
    ok: boolean;
    error: unknown;
  };
  expect(answer.ok).toBe(false);
  const problem = expectProblem(answer.error, refusal);
  expect(problem.instance).toBe(event);
  return problem;
}

/** What is left of a problem when it is not told where it happened. */
const withoutPlace = ({ instance: _instance, requestId: _requestId, ...rest }: Problem) => rest;

const json = (fields: object) => JSON.stringify({ prompt: 'Hello', ...fields });

describe('a body that is not what it should be is refused over HTTP and over sockets alike:', () => {
  const bodies: (Fault & { body: string })[] = [
    { name: 'an array', body: '[]', ...invalid('') },
    { name: 'an array with a request in it', body: '[{"prompt":"Hello"}]', ...invalid('') },
    { name: 'a number', body: '5', ...invalid('') },
    { name: 'a string', body: '"Hello"', ...invalid('') },
    { name: 'null', body: 'null', ...invalid('') },
    { name: 'true', body: 'true', ...invalid('') },
    { name: 'no prompt', body: '{}', ...invalid('/prompt') },
    { name: 'an empty prompt', body: json({ prompt: '' }), ...invalid('/prompt') },
    { name: 'a prompt of white space', body: json({ prompt: ' \n\t\u00a0\u2003' }), ...invalid('/prompt') },
    { name: 'a prompt that is a number', body: json({ prompt: 5 }), ...invalid('/prompt') },
    { name: 'a prompt that is an array', body: json({ prompt: ['Hello'] }), ...invalid('/prompt') },
    {
      name: 'a prompt of 2 MB',
      body: json({ prompt: 'x'.repeat(2_000_000) }),
      ...invalid('/prompt', 'too_big'),
    },
    {
      name: 'a prompt whose characters are few and whose bytes are many',
      body: json({ prompt: '💥'.repeat(MIB / 4 + 1) }),
      ...invalid('/prompt', 'too_big'),
    },
    { name: 'NUL in the prompt', body: json({ prompt: 'a\0b' }), ...invalid('/prompt', 'contains_nul') },
    { name: 'a high surrogate alone', body: '{"prompt":"\\ud800"}', ...invalid('/prompt', 'lone_surrogate') },
    { name: 'a low surrogate alone', body: '{"prompt":"a\\udc00"}', ...invalid('/prompt', 'lone_surrogate') },
    {
      name: 'NUL in the system prompt',
      body: json({ systemPrompt: '\0' }),
      ...invalid('/systemPrompt', 'contains_nul'),
    },
    {
      name: 'half a pair in metadata',
      body: '{"prompt":"a","metadata":{"k":"\\udfff"}}',
      ...invalid('/metadata/k', 'lone_surrogate'),
    },
    {
      name: 'NUL in the name of a metadatum',
      body: json({ metadata: { 'a\0': 'b' } }),
      ...invalid('/metadata/a\0'),
    },
    { name: 'metadata that is no text', body: json({ metadata: { a: 1 } }), ...invalid('/metadata/a') },
    { name: 'metadata that is an array', body: json({ metadata: ['a'] }), ...invalid('/metadata') },
    {
      name: '17 metadata',
      body: json({ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`k${n}`, ''])) }),
      ...invalid('/metadata'),
    },
    { name: 'an unknown field', body: json({ promt: 'x' }), ...invalid('/promt', 'unknown_field') },
    {
      name: 'an unknown field whose name needs escaping in a pointer',
      body: json({ 'a/b~c': 1 }),
      ...invalid('/a~1b~0c', 'unknown_field'),
    },
    {
      name: 'the field constructor',
      body: json({ constructor: {} }),
      ...invalid('/constructor', 'unknown_field'),
    },
    { name: 'the field prototype', body: json({ prototype: 1 }), ...invalid('/prototype', 'unknown_field') },
    {
      name: 'the field __proto__',
      body: '{"prompt":"a","__proto__":{"isAdministrator":true}}',
      ...invalid('/__proto__', 'unknown_field'),
    },
    {
      name: '__proto__ among the metadata',
      body: '{"prompt":"a","metadata":{"__proto__":"x"}}',
      ...invalid('/metadata/__proto__', 'unknown_field'),
    },
    {
      name: 'arrays 1000 deep in a known field',
      body: `{"prompt":"a","tools":${'['.repeat(1000)}${']'.repeat(1000)}}`,
      ...invalid('', 'too_deep'),
    },
    { name: 'a model that is a flag', body: json({ model: '--help' }), ...invalid('/model') },
    {
      name: 'a tool that is a pattern',
      body: json({ allowedTools: ['Read(/etc/*)'] }),
      ...invalid('/allowedTools/0'),
    },
    { name: 'half a turn', body: json({ maxTurns: 0.5 }), ...invalid('/maxTurns') },
    { name: 'a timeout in words', body: json({ timeoutMs: '1000' }), ...invalid('/timeoutMs') },
    { name: 'a timeout beyond a day', body: json({ timeoutMs: 1e300 }), ...invalid('/timeoutMs') },
    ...[-1, 10, 1.5, '9', null].map((priority) => ({
      name: `the priority ${JSON.stringify(priority)}`,
      body: json({ priority }),
      ...invalid('/priority'),
    })),
    ...[0, 999, 86_400_001, '1000'].map((queueTimeoutMs) => ({
      name: `a queue timeout of ${JSON.stringify(queueTimeoutMs)}`,
      body: json({ queueTimeoutMs }),
      ...invalid('/queueTimeoutMs'),
    })),
    {
      name: 'an unknown retry code',
      body: json({ retry: { maxAttempts: 2, on: ['timeout', 'bad_luck'] } }),
      ...invalid('/retry/on/1'),
    },
    {
      name: 'a retry after what no repetition mends',
      body: json({ retry: { maxAttempts: 2, on: ['max_turns_reached'] } }),
      ...invalid('/retry/on/0'),
    },
    {
      name: 'a retry after nothing',
      body: json({ retry: { maxAttempts: 2, on: [] } }),
      ...invalid('/retry/on'),
    },
    { name: 'a retry without its codes', body: json({ retry: { maxAttempts: 2 } }), ...invalid('/retry/on') },
    ...[0, 1, 11, 2.5].map((maxAttempts) => ({
      name: `${maxAttempts} attempts`,
      body: json({ retry: { maxAttempts, on: ['timeout'] } }),
      ...invalid('/retry/maxAttempts'),
    })),
    {
      name: 'a retry with an unknown field',
      body: json({ retry: { maxAttempts: 2, on: ['timeout'], backoffMs: 1 } }),
      ...invalid('/retry/backoffMs', 'unknown_field'),
    },
    {
      name: 'a permission mode of the CLI',
      body: json({ permissionMode: 'bypassPermissions' }),
      ...invalid('/permissionMode'),
    },
    {
      name: 'a tool that is not offered',
      body: json({ tools: ['Read', 'Teleport'] }),
      status: 422,
      code: 'tool_not_allowed',
      pointer: '/tools/1',
      detail: /Teleport/,
    },
    { name: 'a session that is no id', body: json({ sessionId: 'mine' }), ...invalid('/sessionId') },
    {
      name: 'a session that there is not',
      body: json({ sessionId: randomUUID() }),
      status: 404,
      code: 'session_not_found',
    },
    {
      name: 'the fork of a session that there is not',
      body: json({ sessionId: randomUUID(), forkSession: true }),
      status: 404,
      code: 'session_not_found',
    },
    {
      name: 'a fork of nothing',
      body: json({ forkSession: true }),
      ...invalid('/forkSession', 'session_missing'),
    },
    { name: 'a fork in words', body: json({ forkSession: 'yes' }), ...invalid('/forkSession') },
    { name: 'a budget of nothing', body: json({ maxBudgetUsd: 0 }), ...invalid('/maxBudgetUsd') },
    { name: 'a budget beyond reason', body: json({ maxBudgetUsd: 1e6 }), ...invalid('/maxBudgetUsd') },
    { name: 'a budget in words', body: json({ maxBudgetUsd: 'much' }), ...invalid('/maxBudgetUsd') },
    { name: 'a schema in words', body: json({ outputSchema: 'an object' }), ...invalid('/outputSchema') },
    {
      name: 'a schema of something else than an object',
      body: json({ outputSchema: { type: 'array' } }),
      ...invalid('/outputSchema/type', 'no_object'),
    },
    {
      name: 'a schema that is too long',
      body: json({ outputSchema: { type: 'object', description: 'x'.repeat(65_536) } }),
      ...invalid('/outputSchema', 'too_big'),
    },
    {
      name: 'a schema that is too deep',
      body: json({ outputSchema: { type: 'object', not: nested(32) } }),
      ...invalid('/outputSchema', 'too_deep'),
    },
    {
      name: 'a schema with a NUL',
      body: json({ outputSchema: { type: 'object', description: 'a\u0000b' } }),
      ...invalid('/outputSchema', 'odd_text'),
    },
    {
      name: 'a schema that is none',
      body: json({ outputSchema: { type: 'object', properties: 1 } }),
      status: 422,
      code: 'output_schema_invalid',
      pointer: '/outputSchema',
    },
    {
      name: 'a schema that would be fetched',
      body: json({ outputSchema: { type: 'object', $ref: 'http://127.0.0.1:1/' } }),
      status: 422,
      code: 'output_schema_invalid',
      pointer: '/outputSchema',
    },
  ];

  it.each(named(bodies))('%s', async (_, { body, ...refusal }) => {
    const overHttp = await postJson(`${EXECUTE}/async`, body, refusal);
    expect(withoutPlace(await postJson(EXECUTE, body, refusal))).toEqual(withoutPlace(overHttp));
    const overSocket = await expectMessageRefused('claude:execute', [JSON.parse(body)], refusal);
    expect(withoutPlace(overSocket)).toEqual(withoutPlace(overHttp));
  });
});

it('an unknown field is not sent back whole', async () => {
  const { detail, errors } = await postJson(EXECUTE, json({ ['é'.repeat(500_000)]: 1 }), {
    ...invalid(`/${'é'.repeat(199)}…`, 'unknown_field'),
  });
  expect(errors).toHaveLength(1);
  expect(detail).toBe(`/${'é'.repeat(199)}…: there is no such field`);
});

it('a body that is 100,000 deep is refused over HTTP and over sockets alike', async () => {
  const body = `{"prompt":"a","x":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}`;
  const overHttp = await postJson(EXECUTE, body, invalid('', 'too_deep'));
  // The client's own encoder would not survive it.
  const told = heard<{ error: unknown }>(socket, 'claude:error');
  socket.io.engine.write(`2["claude:execute",${body}]`);
  const { error } = await told;
  const overSocket = expectProblem(error, invalid('', 'too_deep'));
  expect(withoutPlace(overSocket)).toEqual(withoutPlace(overHttp));
});

describe('a request whose body cannot be read is refused:', () => {
  const JSON_TYPE = { 'Content-Type': 'application/json' };
  const requests: (Fault & { body?: string | Uint8Array<ArrayBuffer>; headers: Record<string, string> })[] = [
    { name: 'broken JSON', body: '{"prompt":', headers: JSON_TYPE, ...NOT_JSON },
    { name: 'two values', body: '{"prompt":"a"} {}', headers: JSON_TYPE, ...NOT_JSON },
    { name: 'single quotes', body: "{'prompt':'a'}", headers: JSON_TYPE, ...NOT_JSON },
    { name: 'nothing', headers: JSON_TYPE, ...NOT_JSON, detail: /empty/ },
    { name: 'white space', body: ' \n', headers: JSON_TYPE, ...NOT_JSON },
    ...Object.entries({
      'a byte that is never part of UTF-8': [0xff],
      'a character that is cut off': [0xe2, 0x82],
      'a character in more bytes than it needs': [0xc0, 0xaf],
      'half a surrogate pair in three bytes': [0xed, 0xa0, 0x80],
      'Latin-1': [0xfc],
    }).map(([name, bytes]) => ({
      name: `a prompt with ${name}`,
      body: Uint8Array.from([...Buffer.from('{"prompt":"a'), ...bytes, ...Buffer.from('"}')]),
      headers: JSON_TYPE,
      ...NOT_JSON,
      detail: /UTF-8/,
    })),
    {
      name: 'UTF-16',
      body: Uint8Array.from(Buffer.from(`\uFEFF${json({})}`, 'utf16le')),
      headers: { 'Content-Type': 'application/json; charset=utf-16' },
      status: 415,
      code: 'media_type_unsupported',
      detail: /UTF-8/,
    },
    {
      name: 'what says that it is compressed',
      body: Uint8Array.from(gzipSync(json({}))),
      headers: { ...JSON_TYPE, 'Content-Encoding': 'gzip' },
      status: 415,
      code: 'media_type_unsupported',
      detail: /Content-Encoding/,
    },
    {
      name: 'a byte order mark',
      body: `\uFEFF${json({})}`,
      headers: JSON_TYPE,
      ...NOT_JSON,
      detail: /byte order mark/,
    },
    {
      name: 'plain text',
      body: json({}),
      headers: { 'Content-Type': 'text/plain' },
      status: 415,
      code: 'media_type_unsupported',
    },
    {
      name: 'a form',
      body: 'prompt=Hello',
      headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
      status: 415,
      code: 'media_type_unsupported',
    },
    {
      name: 'a multipart form',
      body: '--x--',
      headers: { 'Content-Type': 'multipart/form-data; boundary=x' },
      status: 415,
      code: 'media_type_unsupported',
    },
    {
      name: 'a type that is none',
      body: json({}),
      headers: { 'Content-Type': 'nonsense' },
      status: 415,
      code: 'media_type_unsupported',
    },
    {
      name: 'no type at all',
      body: new TextEncoder().encode(json({})),
      headers: {},
      status: 415,
      code: 'media_type_unsupported',
    },
    {
      name: 'more than 4 MiB',
      body: json({ systemPrompt: 'x'.repeat(4 * MIB) }),
      headers: JSON_TYPE,
      status: 413,
      code: 'body_too_large',
      detail: /4 MiB/,
    },
    ...['', ' ', 'two words', 'tab\there', 'clé', 'x'.repeat(256), 'a, b'].map((key) => ({
      name: `the Idempotency-Key ${JSON.stringify(key.slice(0, 20))}`,
      body: json({}),
      headers: { ...JSON_TYPE, 'Idempotency-Key': key },
      ...invalid('/Idempotency-Key'),
      detail: /Idempotency-Key must have 1 to 255 characters of visible ASCII/,
    })),
    {
      name: 'a key in the body, which is for sockets',
      body: json({ idempotencyKey: 'k' }),
      headers: JSON_TYPE,
      ...invalid('/idempotencyKey', 'unknown_field'),
    },
  ];

  it.each(named(requests))('%s', async (_, { body, headers, ...refusal }) => {
    for (const path of [EXECUTE, `${EXECUTE}/async`])
      await expectRefused('POST', path, refusal, { headers, ...(body === undefined ? {} : { body }) });
  });

  it('two Idempotency-Keys, be they the same', async () => {
    const connection = await RawConnection.open(runner.url);
    const body = json({});
    const problem = await writingNothing(async () => {
      connection.send(
        `POST ${EXECUTE} HTTP/1.1`,
        'Host: runner',
        `Authorization: Bearer ${runner.client.token}`,
        'Content-Type: application/json',
        `Content-Length: ${body.length}`,
        'Idempotency-Key: k',
        'Idempotency-Key: k',
        '',
        body,
      );
      return JSON.parse((await connection.answer()).body) as unknown;
    });
    connection.close();
    expectProblem(problem, { ...invalid('/Idempotency-Key'), detail: /must be sent once/ });
  });

  it('and a client that wants an event stream is refused with a problem all the same', async () => {
    await expectRefused('POST', EXECUTE, invalid('/prompt'), {
      body: '{}',
      headers: { ...JSON_TYPE, Accept: 'text/event-stream' },
    });
  });
});

describe('malformed parameters are refused:', () => {
  const cursor = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const requests: (Fault & { method?: string; path: () => string; headers?: Record<string, string> })[] = [
    ...['x', '1', '%00', `${randomUUID()}0`, "'%20OR%201=1--"].flatMap((id) => [
      { name: `GET the id ${id}`, path: () => `${PROCESSES}/${id}`, ...invalid('/id') },
      { name: `DELETE the id ${id}`, method: 'DELETE', path: () => `${PROCESSES}/${id}`, ...invalid('/id') },
      { name: `the events of ${id}`, path: () => `${PROCESSES}/${id}/events`, ...invalid('/id') },
      { name: `the stream of ${id}`, path: () => `${PROCESSES}/${id}/events/stream`, ...invalid('/id') },
    ]),
    ...['events', 'events/stream'].flatMap((route) => [
      ...['', '%20', '-1', 'x', '1.5', '1e1', '0x1', '1e999', '99999999999', 'NaN'].map((after) => ({
        name: `${route}?after=${after}`,
        path: () => `${waiting.links.self}/${route}?after=${after}`,
        ...invalid('/after'),
      })),
      {
        name: `${route} after what the log has not come to`,
        path: () => `${waiting.links.self}/${route}?after=${waiting.lastSeq + 1}`,
        ...BAD_CURSOR,
      },
      {
        name: `${route} with after twice`,
        path: () => `${waiting.links.self}/${route}?after=0&after=1`,
        ...invalid('/after'),
      },
      {
        name: `${route} with an unknown parameter`,
        path: () => `${waiting.links.self}/${route}?since=1`,
        ...invalid('/since', 'unknown_field'),
      },
      {
        name: `${route} with an unknown include`,
        path: () => `${waiting.links.self}/${route}?include=all`,
        ...invalid('/include'),
      },
    ]),
    ...['-1', 'x', '1.5', '0x1', '99999999999', '1000'].map((id) => ({
      name: `Last-Event-ID: ${id}`,
      path: () => waiting.links.stream,
      headers: { 'Last-Event-ID': id },
      ...BAD_CURSOR,
    })),
    ...[
      'x',
      '%00',
      cursor(null),
      cursor([]),
      cursor(['2026-01-01T00:00:00.000Z', 'x']),
      cursor(['yesterday', randomUUID()]),
      cursor(['2026-01-01T00:00:00.000Z', randomUUID(), 1]),
      cursor(['0000-01-01T00:00:00.000Z', randomUUID()]),
    ].flatMap((value) =>
      [PROCESSES, '/api/v1/auth/api-keys'].map((list) => ({
        name: `${list}?cursor=${value}`,
        path: () => `${list}?cursor=${value}`,
        ...BAD_CURSOR,
      })),
    ),
    {
      name: 'an endless cursor',
      path: () => `${PROCESSES}?cursor=${'x'.repeat(5000)}`,
      ...invalid('/cursor'),
    },
    ...['0', '-1', '101', 'x', '', '1.5', '1e9', '1&limit=2'].flatMap((limit) =>
      [PROCESSES, '/api/v1/auth/api-keys'].map((list) => ({
        name: `${list}?limit=${limit}`,
        path: () => `${list}?limit=${limit}`,
        ...invalid('/limit'),
      })),
    ),
    {
      name: 'an events limit beyond 1000',
      path: () => `${waiting.links.events}?limit=1001`,
      ...invalid('/limit'),
    },
    { name: 'an unknown status', path: () => `${PROCESSES}?status=done`, ...invalid('/status') },
    {
      name: 'an unknown status beside a known one',
      path: () => `${PROCESSES}?status=failed&status=done`,
      ...invalid('/status'),
    },
    {
      name: 'a moment that is none',
      path: () => `${PROCESSES}?createdAfter=yesterday`,
      ...invalid('/createdAfter'),
    },
    {
      name: 'a moment that the database does not know',
      path: () => `${PROCESSES}?createdBefore=0000-01-01T00:00:00Z`,
      ...invalid('/createdBefore'),
    },
    {
      name: 'two moments',
      path: () => `${PROCESSES}?createdAfter=2026-01-01T00:00:00Z&createdAfter=2026-01-01T00:00:00Z`,
      ...invalid('/createdAfter'),
    },
    { name: 'NUL in a metadatum', path: () => `${PROCESSES}?metadata[a]=%00`, ...invalid('/metadata/a') },
    {
      name: 'a metadatum twice',
      path: () => `${PROCESSES}?metadata[a]=1&metadata[a]=2`,
      ...invalid('/metadata/a'),
    },
    {
      name: '17 metadata',
      path: () => `${PROCESSES}?${Array.from({ length: 17 }, (_, n) => `metadata[k${n}]=`).join('&')}`,
      ...invalid('/metadata'),
      detail: /16/,
    },
    { name: 'a metadatum without a name', path: () => `${PROCESSES}?metadata=1`, ...invalid('/metadata') },
    {
      name: 'the metadatum __proto__',
      path: () => `${PROCESSES}?metadata[__proto__]=1`,
      ...invalid('/metadata[__proto__]', 'unknown_field'),
    },
    {
      name: 'the parameter __proto__',
      path: () => `${PROCESSES}?__proto__=1`,
      ...invalid('/__proto__', 'unknown_field'),
    },
    { name: 'a user that is no id', path: () => `${PROCESSES}?userId=me`, ...invalid('/userId') },
    { name: 'an unknown parameter', path: () => `${PROCESSES}?page=2`, ...invalid('/page', 'unknown_field') },
    { name: 'an unknown window', path: () => '/api/v1/claude/metrics?window=1y', ...invalid('/window') },
    { name: 'an unknown scope', path: () => '/api/v1/claude/metrics?scope=ours', ...invalid('/scope') },
    { name: 'a route that is none', path: () => '/api/v1/claude/nothing', ...NO_ROUTE },
    ...['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'GET'].map((method) => ({
      name: `${method} where there is POST alone`,
      method,
      path: () => EXECUTE,
      ...NOT_ALLOWED,
    })),
    {
      name: 'PUT of an id that is known',
      method: 'PUT',
      path: () => waiting.links.self,
      ...NOT_ALLOWED,
    },
    { name: 'POST to the health', method: 'POST', path: () => '/health/live', ...NOT_ALLOWED },
    { name: 'POST to the document', method: 'POST', path: () => '/openapi.json', ...NOT_ALLOWED },
    { name: 'PUT where there is nothing', method: 'PUT', path: () => '/api/v1/nothing', ...NO_ROUTE },
    {
      name: 'a path that cannot be decoded',
      path: () => `${PROCESSES}/%zz`,
      status: 400,
      code: 'bad_request',
    },
    { name: 'a path out of the API', path: () => '/docs/..%2f..%2f..%2fetc/passwd', ...NO_ROUTE },
  ];

  it.each(named(requests))('%s', async (_, { method = 'GET', path, headers, ...refusal }) => {
    await expectRefused(method, path(), refusal, {
      client: runner.administrator,
      ...(headers && { headers }),
    });
  });
});

describe('what is another’s, or not in a state for it, is refused:', () => {
  const NOT_FOUND: Refusal = { status: 404, code: 'process_not_found' };

  it.each(['events?after=0', 'events?after=1', 'events?after=99', 'events/stream?after=1'])(
    'the cursor of another’s process: %s',
    async (route) => {
      const stranger = await signInAsNewUser(runner);
      await expectRefused('GET', `${waiting.links.self}/${route}`, NOT_FOUND, { client: stranger });
    },
  );

  it('the content of a process that has not ended, or is nobody’s', async () => {
    await expectRefused('DELETE', `${waiting.links.self}/content`, {
      status: 409,
      code: 'process_not_ended',
    });
    await expectRefused('DELETE', `${PROCESSES}/${randomUUID()}/content`, NOT_FOUND);
    await expectRefused('DELETE', `${PROCESSES}/x/content`, invalid('/id'));
  });

  it('and a cancel of what has ended changes nothing, over HTTP and over sockets', async () => {
    const { id } = await runner.client.submit({ prompt: 'Cancelled.' });
    const { body: ended } = await runner.client.cancel(id);
    await writingNothing(async () => {
      expect(await runner.client.cancel(id)).toMatchObject({ status: 200, body: ended });
      const answer: unknown = await socket.timeout(60_000).emitWithAck('claude:cancel', { processId: id });
      expect(answer).toEqual({ ok: true, process: ended });
    });
    expect(await runner.stores.query('SELECT 1 FROM process_commands WHERE process_id = $1', [id])).toEqual(
      [],
    );
  });
});

describe('what a process cannot be told is refused over HTTP and over sockets alike:', () => {
  const permissionId = randomUUID();
  const PERMISSION = {
    route: `permissions/${permissionId}`,
    event: 'claude:permission:respond',
    ids: { permissionId },
  };
  interface Told extends Fault {
    to: { route: string; event: string; ids: object };
    body: object;
  }
  const answers: Told[] = [
    { name: 'an answer that is none', body: {}, ...invalid('/decision') },
    { name: 'an unknown answer', body: { decision: 'always' }, ...invalid('/decision') },
    {
      name: 'an unknown field of an answer',
      body: { decision: 'allow', updatedPermissions: [] },
      ...invalid('/updatedPermissions', 'unknown_field'),
    },
    {
      name: 'a message to what is allowed',
      body: { decision: 'allow', message: 'Go' },
      ...invalid('/message', 'no_effect'),
    },
    {
      name: 'an input for what is denied',
      body: { decision: 'deny', updatedInput: {} },
      ...invalid('/updatedInput', 'no_effect'),
    },
    {
      name: 'NUL in a message',
      body: { decision: 'deny', message: 'a\0' },
      ...invalid('/message', 'contains_nul'),
    },
    {
      name: 'an endless message',
      body: { decision: 'deny', message: 'x'.repeat(8 * 1024 + 1) },
      ...invalid('/message', 'too_big'),
    },
    ...['x', 1, null, ['a']].map((updatedInput) => ({
      name: `the input ${JSON.stringify(updatedInput)}`,
      body: { decision: 'allow', updatedInput },
      ...invalid('/updatedInput'),
    })),
    {
      name: 'an endless input',
      body: { decision: 'allow', updatedInput: { content: 'x'.repeat(MIB) } },
      ...invalid('/updatedInput', 'too_big'),
    },
    {
      name: 'half a pair in an input',
      body: { decision: 'allow', updatedInput: { content: '\ud800' } },
      ...invalid('/updatedInput', 'not_text'),
    },
    {
      name: 'NUL in the name of an input',
      body: { decision: 'allow', updatedInput: { 'a\0': 1 } },
      ...invalid('/updatedInput', 'not_text'),
    },
    {
      name: '__proto__ in an input',
      body: JSON.parse('{"decision":"allow","updatedInput":{"__proto__":{}}}') as object,
      ...invalid('/updatedInput/__proto__', 'unknown_field'),
    },
    {
      name: 'an answer to what waits',
      body: { decision: 'allow' },
      status: 409,
      code: 'process_not_started',
    },
  ].map((fault) => ({ to: PERMISSION, ...fault }));
  const MESSAGE = { route: 'messages', event: 'claude:message', ids: {} };
  const INTERRUPT = { route: 'interrupt', event: 'claude:interrupt', ids: {} };
  const steering: Told[] = [
    ...[
      { name: 'a message of nothing', body: {}, ...invalid('/text') },
      { name: 'an empty message', body: { text: '' }, ...invalid('/text') },
      { name: 'a message of white space', body: { text: ' \n' }, ...invalid('/text') },
      { name: 'a message that is a number', body: { text: 1 }, ...invalid('/text') },
      { name: 'NUL in a message of the user', body: { text: 'a\0' }, ...invalid('/text', 'contains_nul') },
      { name: 'half a pair in a message', body: { text: '\ud800' }, ...invalid('/text', 'lone_surrogate') },
      { name: 'a message beyond 1 MiB', body: { text: 'x'.repeat(MIB + 1) }, ...invalid('/text', 'too_big') },
      {
        name: 'an unknown field of a message',
        body: { text: 'a', prompt: 'b' },
        ...invalid('/prompt', 'unknown_field'),
      },
      { name: 'a message to what waits', body: { text: 'a' }, status: 409, code: 'process_not_started' },
    ].map((fault) => ({ to: MESSAGE, ...fault })),
    { to: INTERRUPT, name: 'an interrupt of what waits', body: {}, status: 409, code: 'process_not_started' },
  ];

  it.each(named([...answers, ...steering]))(
    '%s',
    async (_, { to: { route, event, ids }, body, ...refusal }) => {
      const path = `${waiting.links.self}/${route}`;
      const overHttp = await postJson(path, JSON.stringify(body), refusal);
      const message = { processId: waiting.id, ...ids, ...body };
      const overSocket = await expectMessageRefused(event, [message], refusal);
      expect(withoutPlace(overSocket)).toEqual(withoutPlace(overHttp));
      expect(await runner.stores.query('SELECT 1 FROM process_commands')).toEqual([]);
    },
  );

  it.each([
    ['permissions/x', '/permissionId'],
    ['permissions/%00', '/permissionId'],
  ])('an id that is none: %s', async (route, pointer) => {
    await postJson(`${waiting.links.self}/${route}`, '{"decision":"allow"}', invalid(pointer));
  });
});

describe('a session that is malformed is refused:', () => {
  const SESSIONS = '/api/v1/claude/sessions';
  const GONE: Refusal = { status: 404, code: 'session_not_found' };
  const id = randomUUID();
  const requests: (Fault & { method?: string; path?: string; body?: unknown })[] = [
    { name: 'a title that is empty', body: { title: '  ' }, ...invalid('/title') },
    { name: 'a title of a megabyte', body: { title: 'x'.repeat(MIB) }, ...invalid('/title') },
    { name: 'NUL in a title', body: { title: 'a\0b' }, ...invalid('/title') },
    { name: 'half a pair in a title', body: { title: '\ud800' }, ...invalid('/title') },
    { name: 'a title that is a number', body: { title: 5 }, ...invalid('/title') },
    { name: 'an unknown field', body: { head: 1 }, ...invalid('/head', 'unknown_field') },
    { name: 'a change of nothing', method: 'PATCH', path: `/${id}`, body: {}, ...invalid('/title') },
    {
      name: 'a change of what cannot be changed',
      method: 'PATCH',
      path: `/${id}`,
      body: { title: 'a', head: 5 },
      ...invalid('/head', 'unknown_field'),
    },
    ...['-1', '1.5', '"1"', '1e300', 'null'].map((head) => ({
      name: `a fork at ${head}`,
      path: `/${id}/fork`,
      body: { head: JSON.parse(head) as unknown },
      ...invalid('/head'),
    })),
    ...['x', '%00', `${id}0`].flatMap((name) => [
      { name: `GET the id ${name}`, method: 'GET', path: `/${name}`, ...invalid('/id') },
      { name: `the messages of ${name}`, method: 'GET', path: `/${name}/messages`, ...invalid('/id') },
      { name: `DELETE the id ${name}`, method: 'DELETE', path: `/${name}`, ...invalid('/id') },
    ]),
    ...['-1', 'x', '1.5', '99999999999'].map((after) => ({
      name: `messages after ${after}`,
      method: 'GET',
      path: `/${id}/messages?after=${after}`,
      ...invalid('/after'),
    })),
    ...['0', '1001', 'x', '1.5'].map((limit) => ({
      name: `${limit} files`,
      method: 'GET',
      path: `/${id}/files?limit=${limit}`,
      ...invalid('/limit'),
    })),
    ...['/etc', 'a/../b', 'a//b', '%00'].map((cursor) => ({
      name: `files after ${cursor}`,
      method: 'GET',
      path: `/${id}/files?cursor=${cursor}`,
      ...invalid('/cursor'),
    })),
    {
      name: 'a file of an unknown field',
      method: 'GET',
      path: `/${id}/files?path=a`,
      ...invalid('/path', 'unknown_field'),
    },
    ...['GET', 'PUT', 'DELETE'].flatMap((method) => [
      {
        name: `${method} a file above`,
        method,
        path: `/${id}/files/a%2f..%2f..`,
        ...invalid('/path', 'path_outside'),
      },
      {
        name: `${method} a file with NUL`,
        method,
        path: `/${id}/files/a%00`,
        ...invalid('/path', 'contains_nul'),
      },
      { name: `${method} a file of no session`, method, path: `/${id}/files/a`, ...GONE },
      { name: `${method} a file of no id`, method, path: '/x/files/a', ...invalid('/id') },
    ]),
    { name: 'POST to a file', method: 'POST', path: `/${id}/files/a`, ...NOT_ALLOWED },
    { name: 'PUT to the archive', method: 'PUT', path: `/${id}/archive`, ...NOT_ALLOWED },
    { name: 'the archive of no session', method: 'GET', path: `/${id}/archive`, ...GONE },
    { name: 'no messages', method: 'GET', path: `/${id}/messages?limit=0`, ...invalid('/limit') },
    { name: 'too many messages', method: 'GET', path: `/${id}/messages?limit=201`, ...invalid('/limit') },
    { name: 'a cursor that is none', method: 'GET', path: '?cursor=x', ...BAD_CURSOR },
    {
      name: 'an unknown parameter',
      method: 'GET',
      path: '?title=a',
      ...invalid('/title', 'unknown_field'),
    },
    { name: 'GET of one that there is not', method: 'GET', path: `/${id}`, ...GONE },
    { name: 'the messages of one that there is not', method: 'GET', path: `/${id}/messages`, ...GONE },
    { name: 'DELETE of one that there is not', method: 'DELETE', path: `/${id}`, ...GONE },
    { name: 'a fork of one that there is not', path: `/${id}/fork`, body: {}, ...GONE },
    {
      name: 'a title of one that there is not',
      method: 'PATCH',
      path: `/${id}`,
      body: { title: 'a' },
      ...GONE,
    },
    {
      name: 'the processes of a session that is no id',
      method: 'GET',
      path: '/../processes?sessionId=mine',
      ...invalid('/sessionId'),
    },
  ];

  it.each(named(requests))('%s', async (_, { method = 'POST', path = '', body, ...refusal }) => {
    await expectRefused(method, new URL(SESSIONS + path, 'http://x').href.slice('http://x'.length), refusal, {
      ...(body !== undefined && {
        body: JSON.stringify(body),
        headers: { 'Content-Type': 'application/json' },
      }),
    });
  });
});

describe('an answer that nobody would accept', () => {
  const stream = () => `${waiting.links.stream}?after=${waiting.lastSeq}`;
  const NOT_ACCEPTABLE: Refusal = { status: 406, code: 'not_acceptable' };

  it.each<[string, string, () => string, RegExp]>([
    ['a list', 'image/png', () => PROCESSES, /application\/json/],
    ['a list', 'text/event-stream', () => PROCESSES, /application\/json/],
    ['a list', '*/*, application/json;q=0', () => PROCESSES, /application\/json/],
    ['the health', 'text/html', () => '/api/v1/claude/health', /application\/json/],
    ['an event stream', 'application/json', stream, /text\/event-stream/],
  ])('is refused as a problem: %s, Accept: %s', async (_, accept, path, detail) => {
    const headers = { Accept: accept };
    await expectRefused('GET', path(), { ...NOT_ACCEPTABLE, detail }, { headers });
  });

  it('makes no process', async () => {
    const headers = { Accept: 'image/png', 'Content-Type': 'application/json' };
    for (const path of [EXECUTE, `${EXECUTE}/async`])
      await expectRefused('POST', path, NOT_ACCEPTABLE, { headers, body: json({}) });
  });

  it.each([
    'application/json',
    'application/*;q=0.1, image/png',
    'text/html, */*;q=0.8',
    'application/problem+json',
    'nonsense',
  ])('is not what a list is with Accept: %s', async (accept) => {
    const response = await runner.client.fetch(PROCESSES, { headers: { Accept: accept } });
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toMatch(/^application\/json\b/);
  });

  it.each(['*/*', 'text/event-stream', 'text/*'])(
    'is not what an event stream is with Accept: %s',
    async (accept) => {
      const headers = { Accept: accept };
      const response = await runner.client.fetch(`${waiting.links.stream}?after=0`, { headers });
      expect(response.status).toBe(200);
      expect(response.headers.get('content-type')).toMatch(/^text\/event-stream\b/);
      await response.body?.cancel();
    },
  );

  it('is never an empty one: who revokes a key may accept nothing', async () => {
    const path = `/api/v1/auth/api-keys/${randomUUID()}`;
    const headers = { Accept: 'image/png' };
    await expectRefused(
      'DELETE',
      path,
      { status: 404, code: 'api_key_not_found' },
      { client: runner.administrator, headers },
    );
  });
});

describe('what execute answers with', () => {
  const EVENTS = 'text/event-stream';

  it.each([
    [EVENTS, EVENTS],
    ['application/json, text/event-stream', EVENTS],
    ['text/*', EVENTS],
    ['*/*;q=0.5, text/event-stream', EVENTS],
    ['*/*', 'application/json'],
    ['application/json, text/event-stream;q=0.5', 'application/json'],
    ['text/event-stream;q=0, */*', 'application/json'],
    ['application/json', 'application/json'],
  ])('Accept: %s is %s', async (accept, mediaType) => {
    const response = await runner.client.fetch(EXECUTE, {
      method: 'POST',
      headers: { Accept: accept, Prefer: 'wait=0', 'Content-Type': 'application/json' },
      body: json({}),
    });
    expect(response.headers.get('content-type')?.split(';')[0]).toBe(mediaType);
    await response.body?.cancel();
  });
});

describe('a method that a path does not take', () => {
  it.each([
    ['PUT', EXECUTE, 'POST'],
    ['POST', PROCESSES, 'GET'],
    ['PATCH', `${PROCESSES}/ID`, 'GET, DELETE'],
    ['GET', `${PROCESSES}/ID/cancel`, 'POST'],
    ['PUT', '/api/v1/auth/api-keys', 'POST, GET'],
    ['HEAD', PROCESSES, 'GET'],
  ])('is answered with those that it takes: %s %s', async (method, path, allow) => {
    const response = await runner.client.fetch(path, { method });
    expect([response.status, response.headers.get('allow')]).toEqual([405, allow]);
  });

  it('is refused before anything is read', async () => {
    const headers = { 'Content-Type': 'text/plain', Authorization: 'Bearer nonsense' };
    await expectRefused('PUT', EXECUTE, NOT_ALLOWED, { body: 'x', headers });
  });
});

describe('a login or an API key that is malformed is refused:', () => {
  const requests: (Fault & { path: string; body: unknown })[] = [
    { name: 'a login with nothing', path: 'login', body: {}, ...invalid('/email') },
    {
      name: 'an address that is none',
      path: 'login',
      body: { email: 'me', password: 'x' },
      ...invalid('/email'),
    },
    {
      name: 'NUL in an address',
      path: 'login',
      body: { email: 'a\0@b.c', password: 'x' },
      ...invalid('/email'),
    },
    {
      name: 'an empty password',
      path: 'login',
      body: { email: 'a@b.cd', password: '' },
      ...invalid('/password'),
    },
    {
      name: 'a password of a megabyte',
      path: 'login',
      body: { email: 'a@b.cd', password: 'x'.repeat(MIB) },
      ...invalid('/password'),
    },
    {
      name: 'a password that is an object',
      path: 'login',
      body: { email: 'a@b.cd', password: {} },
      ...invalid('/password'),
    },
    { name: 'a key without a name', path: 'api-keys', body: {}, ...invalid('/name') },
    { name: 'NUL in the name of a key', path: 'api-keys', body: { name: 'a\0' }, ...invalid('/name') },
    {
      name: 'half a pair in the name of a key',
      path: 'api-keys',
      body: { name: '\ud800' },
      ...invalid('/name'),
    },
    { name: 'a key with no scope', path: 'api-keys', body: { name: 'a', scopes: [] }, ...invalid('/scopes') },
    {
      name: 'a key with an unknown scope',
      path: 'api-keys',
      body: { name: 'a', scopes: ['root'] },
      ...invalid('/scopes/0'),
    },
    {
      name: 'a key that expires at no time',
      path: 'api-keys',
      body: { name: 'a', expiresAt: 'never' },
      ...invalid('/expiresAt'),
    },
    {
      name: 'a key that has expired before our time',
      path: 'api-keys',
      body: { name: 'a', expiresAt: '0000-01-01T00:00:00Z' },
      ...invalid('/expiresAt'),
    },
    {
      name: 'a key that has expired already',
      path: 'api-keys',
      body: { name: 'a', expiresAt: new Date(Date.now() - 1000).toISOString() },
      ...invalid('/expiresAt'),
      detail: /future/,
    },
    {
      name: 'an unknown field of a key',
      path: 'api-keys',
      body: { name: 'a', userId: randomUUID() },
      ...invalid('/userId', 'unknown_field'),
    },
  ];

  it.each(named(requests))('%s', async (_, { path, body, ...refusal }) => {
    await expectRefused('POST', `/api/v1/auth/${path}`, refusal, {
      client: runner.administrator,
      body: JSON.stringify(body),
      headers: { 'Content-Type': 'application/json' },
    });
    const keys = await runner.stores.query('SELECT name FROM api_keys');
    expect(keys).toEqual([{ name: 'First key' }]);
  });
});

describe('a socket message that is not what it should be is refused:', () => {
  const AN_ID = randomUUID();
  const messages: (Fault & { event: string; args: unknown[] })[] = [
    ...['claude:execute', 'claude:status', 'claude:unfollow', 'claude:cancel'].flatMap((event) => [
      { name: `${event} without a payload`, event, args: [], ...invalid('') },
      { name: `${event} with null`, event, args: [null], ...invalid('') },
      { name: `${event} with an array`, event, args: [[]], ...invalid('') },
      { name: `${event} with text`, event, args: ['hello'], ...invalid('') },
      { name: `${event} with a number`, event, args: [1], ...invalid('') },
      // Four million of them would be four million fields to any schema.
      { name: `${event} with bytes`, event, args: [Buffer.alloc(3_000_000)], ...invalid('') },
    ]),
    ...['claude:status', 'claude:unfollow', 'claude:cancel', 'claude:interrupt'].flatMap((event) => [
      { name: `${event} without an id`, event, args: [{}], ...invalid('/processId') },
      {
        name: `${event} with an id that is none`,
        event,
        args: [{ processId: 'x' }],
        ...invalid('/processId'),
      },
      {
        name: `${event} with an id that is a number`,
        event,
        args: [{ processId: 1 }],
        ...invalid('/processId'),
      },
      {
        name: `${event} with a list of ids`,
        event,
        args: [{ processId: [AN_ID] }],
        ...invalid('/processId'),
      },
      {
        name: `${event} with an unknown field`,
        event,
        args: [{ processId: AN_ID, id: AN_ID }],
        ...invalid('/id', 'unknown_field'),
      },
      {
        name: `${event} with __proto__`,
        event,
        args: [JSON.parse(`{"processId":"${AN_ID}","__proto__":{}}`)],
        ...invalid('/__proto__', 'unknown_field'),
      },
    ]),
    ...[-1, 1.5, 2 ** 31, 1e300, 'x', '1', true, null, [], {}].map((after) => ({
      name: `claude:status after ${JSON.stringify(after)}`,
      event: 'claude:status',
      args: [{ processId: AN_ID, after }],
      ...invalid('/after'),
    })),
    ...['', 'two words', 'x'.repeat(256), 'clé', 1, null, ['k']].map((idempotencyKey) => ({
      name: `claude:execute with the key ${JSON.stringify(idempotencyKey).slice(0, 20)}`,
      event: 'claude:execute',
      args: [{ prompt: 'Hello', idempotencyKey }],
      ...invalid('/idempotencyKey'),
    })),
    ...['claude:nothing', 'message', 'error', '__proto__', 'toString'].map((event) => ({
      name: `the unknown event ${event}`,
      event,
      args: [{}],
      status: 404,
      code: 'event_not_found',
    })),
    {
      name: 'claude:status with an unknown include',
      event: 'claude:status',
      args: [{ processId: AN_ID, include: 'all' }],
      ...invalid('/include'),
    },
  ];

  it.each(named(messages))('%s', async (_, { event, args, ...refusal }) => {
    await expectMessageRefused(event, args, refusal);
  });

  it('claude:status after what the log has not come to, with the body that HTTP gives', async () => {
    const after = waiting.lastSeq + 1;
    const overSocket = await expectMessageRefused(
      'claude:status',
      [{ processId: waiting.id, after }],
      BAD_CURSOR,
    );
    const overHttp = await expectRefused('GET', `${waiting.links.events}?after=${after}`, BAD_CURSOR);
    expect(withoutPlace(overSocket)).toEqual(withoutPlace(overHttp));
  });

  it.each([
    ['claude:status', 'GET', ''],
    ['claude:cancel', 'DELETE', ''],
    ['claude:cancel', 'POST', '/cancel'],
  ])('%s of an id that is nobody’s, with the body that %s gives', async (event, method, suffix) => {
    const refusal = { status: 404, code: 'process_not_found' };
    const overSocket = await expectMessageRefused(event, [{ processId: AN_ID }], refusal);
    const overHttp = await expectRefused(method, `${PROCESSES}/${AN_ID}${suffix}`, refusal);
    expect(withoutPlace(overSocket)).toEqual(withoutPlace(overHttp));
  });

  it('by claude:error where it carries no ack', async () => {
    const told = heard<{ error: unknown }>(socket, 'claude:error');
    socket.emit('claude:cancel', { processId: 'x' });
    const { error } = await told;
    expectProblem(error, invalid('/processId'));
  });

  it('by claude:error where its event is unknown and it carries no ack, and its name is not sent back whole', async () => {
    const told = heard<{ error: unknown }>(socket, 'claude:error');
    socket.emit('x'.repeat(1000));
    const { error } = await told;
    const { instance } = expectProblem(error, { status: 404, code: 'event_not_found' });
    expect(instance).toBe('x'.repeat(100));
  });

  it('by the end of the connection where it has more than 4 MiB, and the others stay', async () => {
    const other = await connect(runner.client);
    const disconnected = heard(other, 'disconnect');
    other.emit('claude:execute', { prompt: 'x'.repeat(4 * MIB) });
    await disconnected;
    other.disconnect();
    await expectMessageRefused('claude:cancel', [{ processId: 'x' }], invalid('/processId'));
  });
});

describe('credentials that are not ours are refused by every route and by the handshake:', () => {
  const seconds = (offset = 0) => Math.floor(Date.now() / 1000) + offset;
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');
  type Signer = (text: string, pem: { privateKey: string; publicKey: string }) => Buffer;
  const withOurKey: Signer = (text, { privateKey }) =>
    sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' });

  interface Forgery {
    header?: object;
    claims?: object;
    signer?: Signer;
  }

  /** Without a forgery, a token that the server takes. */
  async function forge({ header = {}, claims = {}, signer = withOurKey }: Forgery): Promise<string> {
    const [key] = await runner.stores.query<{ id: string; private_key: string; public_key: string }>(
      'SELECT id, private_key, public_key FROM signing_keys',
    );
    const [user] = await runner.stores.query<{ id: string }>('SELECT id FROM users');
    const text = [
      encode({ alg: 'ES256', typ: 'at+jwt', kid: key!.id, ...header }),
      encode({
        sub: user!.id,
        iss: 'claude-runner',
        aud: 'claude-runner-api',
        iat: seconds(),
        exp: seconds(600),
        ...claims,
      }),
    ].join('.');
    const signature = signer(text, { privateKey: key!.private_key, publicKey: key!.public_key });
    return `${text}.${signature.toString('base64url')}`;
  }

  const forgeries: Record<string, Forgery> = {
    'alg none': { header: { alg: 'none' }, signer: () => Buffer.alloc(0) },
    'HS256 signed with the public key': {
      header: { alg: 'HS256' },
      signer: (text, { publicKey }) => createHmac('sha256', publicKey).update(text).digest(),
    },
    'another key': {
      signer: (text) => {
        const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
        return sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' });
      },
    },
    'no signature': { signer: () => Buffer.alloc(0) },
    'a signature of something else': { signer: (_, pem) => withOurKey('something else', pem) },
    'another audience': { claims: { aud: 'another-api' } },
    'another issuer': { claims: { iss: 'another-runner' } },
    'another type': { header: { typ: 'JWT' } },
    'no type': { header: { typ: undefined } },
    'an unknown kid': { header: { kid: randomUUID() } },
    'a kid that is no id': { header: { kid: "' OR 1=1 --" } },
    'no kid': { header: { kid: undefined } },
    'a kid that is an object': { header: { kid: {} } },
    'the past': { claims: { exp: seconds(-1) } },
    'no end': { claims: { exp: undefined } },
    'a beginning in the future': { claims: { nbf: seconds(600) } },
    'an unknown user': { claims: { sub: randomUUID() } },
    'a user that is no id': { claims: { sub: 'admin' } },
    'no user': { claims: { sub: undefined } },
  };

  const brokenKey = () => {
    const { key } = makeApiKey();
    return key.slice(0, -1) + (key.endsWith('0') ? '1' : '0');
  };
  const tokens: [name: string, make: () => string | Promise<string>][] = [
    ...Object.entries(forgeries).map(([name, forgery]): [string, () => Promise<string>] => [
      `a token with ${name}`,
      () => forge(forgery),
    ]),
    ['a word', () => 'garbage'],
    ['dots', () => '..'],
    ['three words', () => 'a.b.c'],
    ['a token that is null', () => `${encode([])}.bnVsbA.x`],
    ['an endless word', () => 'x'.repeat(10_000)],
    ['a key that was never made', () => makeApiKey().key],
    ['a key with a wrong checksum', brokenKey],
    ['the beginning of the key', () => runner.client.token!.slice(0, 16)],
    ['the key in capitals', () => runner.client.token!.toUpperCase()],
  ];

  it('(the same token, unforged, is taken)', async () => {
    const { status } = await new ApiClient(runner.url, await forge({})).request('GET', PROCESSES);
    expect(status).toBe(200);
  });

  it.each(tokens)('%s', async (_, make) => {
    const client = new ApiClient(runner.url, await make());
    const options = { client, body: json({}), headers: { 'Content-Type': 'application/json' } };
    const overHttp = await expectRefused('POST', EXECUTE, UNAUTHENTICATED, options);
    await expectRefused('GET', PROCESSES, UNAUTHENTICATED, { client });
    // A public route takes no credentials for none, and wrong ones for wrong.
    await expectRefused('GET', '/api/v1/claude/health', UNAUTHENTICATED, { client });
    const overSocket = await expectHandshakeRefused(client.token);
    expect(withoutPlace(overSocket)).toEqual(withoutPlace(overHttp));
  });

  it.each(['', 'Bearer', 'Bearer ', 'Basic YWRtaW46YWRtaW4=', 'Bearer a b', 'Token x'])(
    'Authorization: %s',
    async (authorization) => {
      const client = new ApiClient(runner.url, null);
      await expectRefused('GET', PROCESSES, UNAUTHENTICATED, {
        client,
        headers: { Authorization: authorization },
      });
    },
  );

  it('X-API-Key: garbage', async () => {
    const client = new ApiClient(runner.url, null);
    await expectRefused('GET', PROCESSES, UNAUTHENTICATED, { client, headers: { 'X-API-Key': 'garbage' } });
  });

  it.each([[null], [''], [5], [{}], [['a']]])('the socket token %j', async (token) => {
    await expectHandshakeRefused(token, /auth: \{ token \}/);
  });

  async function expectHandshakeRefused(token: unknown, detail?: RegExp): Promise<Problem> {
    const refused = runner.client.socket();
    refused.auth = { token };
    refused.io.reconnection(false);
    const told = heard<Error & { data: unknown }>(refused, 'connect_error');
    refused.connect();
    const error = await told;
    refused.disconnect();
    expect(error.message).toBe('unauthenticated');
    return expectProblem(error.data, { ...UNAUTHENTICATED, ...(detail && { detail }) });
  }
});
