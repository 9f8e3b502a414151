import { randomUUID } from 'node:crypto';
import { buildAsyncApi } from '../src/asyncapi.js';
import type { AccessToken, ApiKey, ApiKeyPage, CreatedApiKey } from '../src/auth/auth.schemas.js';
import { ClaudeGateway } from '../src/claude/claude.gateway.js';
import type { Health } from '../src/claude/claude.schemas.js';
import { type Scope, ScopeSchema } from '../src/platform/access/access.schemas.js';
import type { Problem } from '../src/platform/errors/errors.schemas.js';
import type { Process, ProcessPage } from '../src/processes/processes.schemas.js';
import { ApiClient, type Answer } from './support/api-client.js';
import { RecordedSocket, type SocketAnswer } from './support/recorded-socket.js';
import { ADMIN_PASSWORD, startBeside, startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser, userIdOf } from './support/users.js';

const PROCESSES = '/api/v1/claude/processes';
const SESSIONS = '/api/v1/claude/sessions';
const PERMISSION_ID = randomUUID();
const KEYS = '/api/v1/auth/api-keys';
const ADMIN_EMAIL = 'admin@claude-runner.local';

let runner: TestServer;
let owner: ApiClient;
let other: ApiClient;

beforeAll(async () => {
  // It runs nothing: what is submitted waits until it is cancelled.
  runner = await startTestServer({ ROLE: 'api', EXECUTE_MAX_WAIT_MS: '1' });
  [owner, other] = [await signInAsNewUser(runner), await signInAsNewUser(runner)];
});
afterAll(() => runner.stop());

const noOne = () => new ApiClient(runner.url, null);

const createKey = async (client: ApiClient, fields: object = {}): Promise<CreatedApiKey> =>
  (await client.request<CreatedApiKey>('POST', KEYS, { name: 'A key', ...fields })).body;

const withKey = ({ key }: { key: string }) => new ApiClient(runner.url, key);

/** A key of the owner with every scope that a user can give but this one. */
async function keyWithout(missing: Scope): Promise<ApiClient> {
  const scopes = ScopeSchema.options.filter((scope) => scope !== missing && scope !== 'admin');
  return withKey(await createKey(owner, { scopes }));
}

const waiting = () => owner.submit({ prompt: 'Wait.' });

async function ended(): Promise<Process> {
  const { id } = await waiting();
  return (await owner.cancel(id)).body;
}

const session = async () => (await owner.request<{ id: string }>('POST', SESSIONS, { title: 'Mine' })).body;

async function sessionWithFile() {
  const made = await session();
  await owner.fetch(`${SESSIONS}/${made.id}/files/a/file`, { method: 'PUT', body: 'x' });
  return made;
}

/** What a problem says of an id, with the id and the place taken out. */
const withoutId = ({ instance: _instance, requestId: _requestId, ...problem }: Problem, id: string) =>
  JSON.parse(JSON.stringify(problem).replaceAll(id, 'ID')) as unknown;

describe('every operation of the OpenAPI document', () => {
  interface Access {
    /** Null: anyone may. */
    scope: Scope | null;
    body?: object;
    /** What it is asked of: something of the owner's. */
    makeId?: () => Promise<string>;
    /** The status that each gets who may. */
    answers: { owner: number; other: number; administrator: number };
  }

  const everyone = (status: number) => ({ owner: status, other: status, administrator: status });
  const OWNERS_AND_ADMINISTRATORS = { owner: 200, other: 404, administrator: 200 };
  const OWNERS_ALONE = { owner: 409, other: 404, administrator: 404 };
  const ADMINISTRATORS = { owner: 403, other: 403, administrator: 200 };
  const idOf = (make: () => Promise<{ id: string }>) => async () => (await make()).id;

  const ACCESS: Record<string, Access> = {
    login: {
      scope: null,
      body: { email: ADMIN_EMAIL, password: ADMIN_PASSWORD },
      answers: everyone(200),
    },
    createApiKey: { scope: 'keys:manage', body: { name: 'A key' }, answers: everyone(201) },
    listApiKeys: { scope: 'keys:manage', answers: everyone(200) },
    revokeApiKey: {
      scope: 'keys:manage',
      makeId: idOf(() => createKey(owner)),
      answers: { owner: 204, other: 404, administrator: 404 },
    },
    execute: { scope: 'claude:execute', body: { prompt: 'Wait.' }, answers: everyone(202) },
    executeAsync: { scope: 'claude:execute', body: { prompt: 'Wait.' }, answers: everyone(202) },
    listProcesses: { scope: 'claude:read', answers: everyone(200) },
    getProcess: { scope: 'claude:read', makeId: idOf(waiting), answers: OWNERS_AND_ADMINISTRATORS },
    cancelProcess: { scope: 'claude:execute', makeId: idOf(waiting), answers: OWNERS_AND_ADMINISTRATORS },
    cancelProcessByPost: {
      scope: 'claude:execute',
      makeId: idOf(waiting),
      answers: OWNERS_AND_ADMINISTRATORS,
    },
    deleteProcessContent: {
      scope: 'claude:execute',
      makeId: idOf(ended),
      answers: OWNERS_AND_ADMINISTRATORS,
    },
    // Of a process that waits, which has asked for nothing.
    answerPermission: {
      scope: 'claude:execute',
      body: { decision: 'allow' },
      makeId: idOf(waiting),
      answers: OWNERS_ALONE,
    },
    sendMessage: {
      scope: 'claude:execute',
      body: { text: 'Go on.' },
      makeId: idOf(waiting),
      answers: OWNERS_ALONE,
    },
    interruptProcess: { scope: 'claude:execute', makeId: idOf(waiting), answers: OWNERS_ALONE },
    listProcessEvents: { scope: 'claude:read', makeId: idOf(waiting), answers: OWNERS_AND_ADMINISTRATORS },
    streamProcessEvents: { scope: 'claude:read', makeId: idOf(ended), answers: OWNERS_AND_ADMINISTRATORS },
    getQueue: { scope: 'admin', answers: ADMINISTRATORS },
    pauseQueue: { scope: 'admin', answers: ADMINISTRATORS },
    resumeQueue: { scope: 'admin', answers: ADMINISTRATORS },
    createSession: { scope: 'claude:execute', body: {}, answers: everyone(201) },
    listSessions: { scope: 'claude:read', answers: everyone(200) },
    getSession: { scope: 'claude:read', makeId: idOf(session), answers: OWNERS_AND_ADMINISTRATORS },
    updateSession: {
      scope: 'claude:execute',
      body: { title: 'Changed' },
      makeId: idOf(session),
      answers: OWNERS_AND_ADMINISTRATORS,
    },
    deleteSession: {
      scope: 'claude:execute',
      makeId: idOf(session),
      answers: { owner: 204, other: 404, administrator: 204 },
    },
    listSessionMessages: { scope: 'claude:read', makeId: idOf(session), answers: OWNERS_AND_ADMINISTRATORS },
    listFiles: { scope: 'claude:read', makeId: idOf(session), answers: OWNERS_AND_ADMINISTRATORS },
    downloadFile: {
      scope: 'claude:read',
      makeId: idOf(sessionWithFile),
      answers: OWNERS_AND_ADMINISTRATORS,
    },
    uploadFile: {
      scope: 'claude:execute',
      body: {},
      makeId: idOf(session),
      answers: { owner: 201, other: 404, administrator: 201 },
    },
    deleteFile: {
      scope: 'claude:execute',
      makeId: idOf(sessionWithFile),
      answers: { owner: 204, other: 404, administrator: 204 },
    },
    downloadArchive: { scope: 'claude:read', makeId: idOf(session), answers: OWNERS_AND_ADMINISTRATORS },
    forkSession: {
      scope: 'claude:execute',
      body: {},
      makeId: idOf(session),
      answers: { owner: 201, other: 404, administrator: 404 },
    },
    getHealth: { scope: null, answers: everyone(200) },
    getMetrics: { scope: 'claude:read', answers: everyone(200) },
  };

  /** By operation id. */
  let operations: Map<string, { method: string; path: string }>;

  beforeAll(async () => {
    const { body } = await noOne().request<{
      paths: Record<string, Record<string, { operationId: string }>>;
    }>('GET', '/openapi.json');
    operations = new Map(
      Object.entries(body.paths).flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, { operationId }]) => [
          operationId,
          { method: method.toUpperCase(), path },
        ]),
      ),
    );
  });

  it('is in the matrix below', () => {
    expect([...operations.keys()].sort()).toEqual(Object.keys(ACCESS).sort());
  });

  /** Calls an operation. Its body is left unread: a stream would have to be parsed. */
  async function call(operationId: string, client: ApiClient, id: string) {
    const { method, path } = operations.get(operationId)!;
    const { body } = ACCESS[operationId]!;
    const where = path
      .replace('{id}', id)
      .replace('{permissionId}', PERMISSION_ID)
      .replace('{path}', 'a/file');
    return client.fetch(where, {
      method,
      ...(body && { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } }),
    });
  }

  const problemOf = async (response: Response) => (await response.json()) as Problem;
  const whatThereIs = (id: string) =>
    runner.stores.query(
      'SELECT status::text, cancel_requested_at AS changed FROM processes WHERE id = $1 UNION ALL SELECT name, revoked_at FROM api_keys WHERE id = $1 UNION ALL SELECT title, deleted_at FROM sessions WHERE id = $1',
      [id],
    );
  const countOfAll = () =>
    runner.stores.query(
      'SELECT (SELECT count(*) FROM processes) AS processes, (SELECT count(*) FROM api_keys) AS keys, (SELECT count(*) FROM sessions) AS sessions',
    );

  describe.each(Object.entries(ACCESS))('%s', (operationId, access) => {
    const { scope, answers, makeId = () => Promise.resolve(randomUUID()) } = access;

    it.each(Object.entries(answers))('asked by %s is answered with %i', async (who, status) => {
      const client = { owner, other, administrator: runner.administrator }[who]!;
      expect((await call(operationId, client, await makeId())).status).toBe(status);
    });

    const strangers = Object.entries(answers).flatMap(([who, status]) => (status === 404 ? [who] : []));
    if (strangers.length > 0)
      it.each(strangers)('asked by %s does nothing and looks as if there were no such id', async (who) => {
        const client = { other, administrator: runner.administrator }[who]!;
        const [id, unknown] = [await makeId(), randomUUID()];
        const before = await whatThereIs(id);
        const refused = await problemOf(await call(operationId, client, id));
        expect(await whatThereIs(id)).toEqual(before);
        const ofUnknown = await problemOf(await call(operationId, client, unknown));
        expect(withoutId(refused, id)).toEqual(withoutId(ofUnknown, unknown));
      });

    it.each([
      ['no one', noOne, scope === null ? answers.owner : 401],
      [
        'a key without the scope',
        () => keyWithout(scope ?? 'claude:read'),
        scope === null ? answers.owner : 403,
      ],
    ])('asked by %s does nothing but what anyone may', async (_, makeClient, status) => {
      const [client, id] = [await makeClient(), await makeId()];
      const before = [await whatThereIs(id), await countOfAll()];
      expect((await call(operationId, client, id)).status).toBe(status);
      expect([await whatThereIs(id), await countOfAll()]).toEqual(before);
    });
  });
});

describe('every event of the sockets', () => {
  type Send = (socket: RecordedSocket, processId: string) => Promise<SocketAnswer>;
  interface Access {
    scope: Scope;
    /** Whether it is asked of a process, which must be the caller's. */
    isOfProcess: boolean;
    /** Of a process that waits, where that is refused to its owner, too; then administrators have no more rights. */
    refusal?: string;
    send: Send;
  }

  const ask =
    (event: string, fields: object = {}): Send =>
    (socket, processId) =>
      socket.ask(event, { processId, ...fields });

  const ACCESS: Record<string, Access> = {
    'claude:execute': {
      scope: 'claude:execute',
      isOfProcess: false,
      send: (socket) => socket.ask('claude:execute', { prompt: 'Wait.' }),
    },
    'claude:status': { scope: 'claude:read', isOfProcess: true, send: ask('claude:status', { after: 0 }) },
    'claude:unfollow': { scope: 'claude:read', isOfProcess: true, send: ask('claude:unfollow') },
    'claude:cancel': { scope: 'claude:execute', isOfProcess: true, send: ask('claude:cancel') },
    'claude:permission:respond': {
      scope: 'claude:execute',
      isOfProcess: true,
      refusal: 'process_not_started',
      send: ask('claude:permission:respond', { permissionId: PERMISSION_ID, decision: 'allow' }),
    },
    'claude:message': {
      scope: 'claude:execute',
      isOfProcess: true,
      refusal: 'process_not_started',
      send: ask('claude:message', { text: 'Go on.' }),
    },
    'claude:interrupt': {
      scope: 'claude:execute',
      isOfProcess: true,
      refusal: 'process_not_started',
      send: ask('claude:interrupt'),
    },
  };

  it('is in the matrix below, and in the AsyncAPI document', () => {
    const handlers = Object.getOwnPropertyNames(ClaudeGateway.prototype).map(
      (name) => ClaudeGateway.prototype[name as keyof ClaudeGateway] as object,
    );
    const events = handlers.map((handler) => Reflect.getMetadata('message', handler) as string | undefined);
    const subscribed = events.filter((event) => event !== undefined).sort();
    expect(subscribed).toEqual(Object.keys(ACCESS).sort());

    const { operations, channels } = buildAsyncApi();
    const messages = channels.socket.messages as Record<string, { name: string }>;
    const received = Object.entries(operations as Record<string, { action: string }>)
      .filter(([, { action }]) => action === 'receive')
      .map(([name]) => messages[name]?.name);
    expect(received.sort()).toEqual(subscribed);
  });

  const asked = async (client: ApiClient, send: Send, processId: string) => {
    const socket = await RecordedSocket.connect(client);
    const answer = await send(socket, processId);
    const followed = socket.log(processId);
    socket.close();
    return { answer, followed };
  };

  describe.each(Object.entries(ACCESS))('%s', (_, { scope, isOfProcess, refusal, send }) => {
    it('is answered to the owner, and to an administrator where they may', async () => {
      for (const [client, code] of [
        [owner, refusal],
        [runner.administrator, refusal && 'process_not_found'],
      ] as const) {
        const { answer } = await asked(client, send, (await waiting()).id);
        expect(answer).toMatchObject(code === undefined ? { ok: true } : { ok: false, error: { code } });
      }
    });

    it('of another’s process looks like that of an unknown one', async () => {
      const { id } = await waiting();
      const { answer, followed } = await asked(other, send, id);
      expect(answer.ok).toBe(!isOfProcess);
      expect(followed).toEqual([]);
      expect(await owner.find(id)).toMatchObject({ status: 'pending', cancelRequestedAt: null });
      const unknown = randomUUID();
      const ofUnknown = await asked(other, send, unknown);
      expect(refusalOf(answer, id)).toEqual(refusalOf(ofUnknown.answer, unknown));
    });

    it(`is refused to a key without ${scope}`, async () => {
      const { id } = await waiting();
      const { answer } = await asked(await keyWithout(scope), send, id);
      expect(answer).toMatchObject({ ok: false, error: { code: 'forbidden', status: 403 } });
      expect(await owner.find(id)).toMatchObject({ status: 'pending' });
    });
  });

  it('is out of reach for no one: there is no connection without credentials', async () => {
    await expect(RecordedSocket.connect(noOne())).rejects.toMatchObject({
      data: { code: 'unauthenticated', status: 401 },
    });
  });

  const refusalOf = (answer: SocketAnswer, id: string) => (answer.ok ? null : withoutId(answer.error, id));
});

describe('what a list, a figure or a health holds is the caller’s own:', () => {
  const list = async (client: ApiClient, query = '') =>
    (await client.request<ProcessPage>('GET', `${PROCESSES}${query}`)).body.items;

  it('the processes of others are on the lists of administrators alone, who ask for them by user', async () => {
    const { id } = await waiting();
    expect((await list(owner, '?limit=1')).map((item) => item.id)).toEqual([id]);
    expect((await list(other, '?limit=100')).map((item) => item.id)).not.toContain(id);
    expect((await list(runner.administrator, '?limit=100')).map((item) => item.id)).not.toContain(id);
    const ofOwner = await list(runner.administrator, `?limit=1&userId=${userIdOf(owner)}`);
    expect(ofOwner.map((item) => item.id)).toEqual([id]);
  });

  it('who is no administrator cannot even ask for a user, be it themselves', async () => {
    for (const client of [other, runner.client]) {
      const { status, body } = await client.request('GET', `${PROCESSES}?userId=${userIdOf(owner)}`);
      expect([status, body.code]).toEqual([403, 'forbidden']);
    }
  });

  it('the figures of everybody are for administrators alone', async () => {
    const figures = '/api/v1/claude/metrics?scope=all';
    expect((await other.request('GET', figures)).status).toBe(403);
    expect((await runner.client.request('GET', figures)).status).toBe(403);
    const { body } = await runner.administrator.request('GET', figures);
    expect(body).toMatchObject({ scope: 'all', workers: 0 });
  });

  it('the health has parts with credentials alone, and paths for administrators alone', async () => {
    const health = async (client: ApiClient) =>
      (await client.request<Health>('GET', '/api/v1/claude/health')).body;
    expect((await health(noOne())).parts).toBeNull();
    expect((await health(other)).parts).toMatchObject({ database: 'ok', cliPaths: null });
    expect((await health(runner.administrator)).parts).toMatchObject({ database: 'ok', cliPaths: [] });
  });

  it('an administrator’s key without the scope admin is no administrator', async () => {
    const { id } = await waiting();
    expect((await runner.client.request('GET', `${PROCESSES}/${id}`)).status).toBe(404);
    const scopes = ['claude:read', 'admin'];
    const key = withKey(await createKey(runner.administrator, { scopes }));
    expect((await key.request('GET', `${PROCESSES}/${id}`)).status).toBe(200);
  });
});

describe('an API key', () => {
  const listKeys = async (client: ApiClient, query = '') =>
    (await client.request<ApiKeyPage>('GET', `${KEYS}${query}`)).body;
  const find = async (client: ApiClient, id: string): Promise<ApiKey | undefined> =>
    (await listKeys(client, '?limit=100')).items.find((key) => key.id === id);
  const statusOf = async (client: ApiClient) => (await client.request('GET', PROCESSES)).status;
  const revoke = (client: ApiClient, id: string): Promise<Answer<unknown>> =>
    client.request<unknown>('DELETE', `${KEYS}/${id}`);

  it('is shown when it is made and never again, not even by the database', async () => {
    const created = await createKey(owner, { name: '  CI  ' });
    const { key, ...shown } = created;
    expect(created).toMatchObject({
      name: 'CI',
      scopes: ['claude:execute', 'claude:read'],
      expiresAt: null,
      revokedAt: null,
    });
    expect(key.startsWith(`${shown.prefix}_`)).toBe(true);
    expect(await find(owner, shown.id)).toEqual(shown);
    const rows = await runner.stores.query('SELECT api_keys::text AS row FROM api_keys');
    expect(JSON.stringify(rows)).not.toContain(key.slice(shown.prefix.length + 1));
    expect(await statusOf(withKey(created))).toBe(200);
  });

  it('is taken as X-API-Key as well', async () => {
    const { key } = await createKey(owner);
    const { status } = await noOne().request('GET', PROCESSES, undefined, { 'X-API-Key': key });
    expect(status).toBe(200);
  });

  it('is on the list of its owner alone, newest first, page by page', async () => {
    const user = await signInAsNewUser(runner);
    const ids: string[] = [];
    for (let n = 0; n < 3; n += 1) ids.unshift((await createKey(user)).id);
    const first = await listKeys(user, '?limit=2');
    const second = await listKeys(user, `?limit=2&cursor=${first.nextCursor}`);
    expect([...first.items, ...second.items].map(({ id }) => id)).toEqual(ids);
    expect(second.nextCursor).toBeNull();
    expect(await find(other, ids[0]!)).toBeUndefined();
    expect(await find(runner.administrator, ids[0]!)).toBeUndefined();
  });

  it('that is revoked ends at once, over HTTP and on the next message of an open socket', async () => {
    const created = await createKey(owner);
    const socket = await RecordedSocket.connect(withKey(created));
    const { id } = await waiting();
    expect(await socket.ask('claude:status', { processId: id })).toMatchObject({ ok: true });

    // Without telling anyone: the socket itself would be closed.
    await runner.stores.query('UPDATE api_keys SET revoked_at = now() WHERE id = $1', [created.id]);
    expect(await statusOf(withKey(created))).toBe(401);
    for (const event of ['claude:status', 'claude:cancel', 'claude:unfollow'])
      expect(await socket.ask(event, { processId: id })).toMatchObject({
        ok: false,
        error: { code: 'unauthenticated' },
      });
    socket.close();
    expect(await owner.find(id)).toMatchObject({ status: 'pending' });
  });

  it('is revoked once and for all: once more changes nothing', async () => {
    const created = await createKey(owner);
    expect((await revoke(owner, created.id)).status).toBe(204);
    expect(await statusOf(withKey(created))).toBe(401);
    const { revokedAt } = (await find(owner, created.id))!;
    expect(revokedAt).not.toBeNull();
    expect((await revoke(owner, created.id)).status).toBe(204);
    expect((await find(owner, created.id))!.revokedAt).toBe(revokedAt);
  });

  it('can revoke itself', async () => {
    const created = await createKey(owner, { scopes: ['keys:manage'] });
    expect((await revoke(withKey(created), created.id)).status).toBe(204);
    expect((await revoke(withKey(created), created.id)).status).toBe(401);
  });

  it('that has expired is refused', async () => {
    const created = await createKey(owner, { expiresAt: new Date(Date.now() + 60_000).toISOString() });
    expect(await statusOf(withKey(created))).toBe(200);
    await runner.stores.query('UPDATE api_keys SET expires_at = now() WHERE id = $1', [created.id]);
    expect(await statusOf(withKey(created))).toBe(401);
  });

  it('closes its sockets when it expires', async () => {
    const expiresAt = new Date(Date.now() + 5_000).toISOString();
    const socket = await RecordedSocket.connect(withKey(await createKey(owner, { expiresAt })));
    await socket.until((heard) => heard.some(({ name }) => name === 'disconnect'));
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(expiresAt) - 1);
    socket.close();
  });

  it.each([
    ['a user', () => owner, ['admin'], /admin/],
    ['a user, beside what is theirs', () => owner, ['claude:read', 'admin'], /admin/],
    [
      'a key',
      async () => withKey(await createKey(owner, { scopes: ['keys:manage'] })),
      ['claude:read'],
      /claude:read/,
    ],
    [
      'an administrator’s key',
      async () => withKey(await createKey(runner.administrator, { scopes: ['keys:manage'] })),
      ['keys:manage', 'admin'],
      /admin/,
    ],
  ])('cannot do more than its maker: %s', async (_, makeClient, scopes, detail) => {
    const client = await makeClient();
    const { status, body } = await client.request('POST', KEYS, { name: 'More', scopes });
    expect([status, body.code]).toEqual([403, 'forbidden']);
    expect(body.detail).toMatch(detail);
  });

  describe('that is made with a key', () => {
    const inMinutes = (minutes: number) => new Date(Date.now() + minutes * 60_000).toISOString();
    const MAKER_EXPIRES_AT = inMinutes(60);
    const makerWith = async (expiresAt: string | null) =>
      withKey(await createKey(owner, { scopes: ['claude:read', 'keys:manage'], expiresAt }));
    const make = (maker: ApiClient, fields: object) =>
      maker.request<CreatedApiKey & Problem>('POST', KEYS, {
        name: 'Made',
        scopes: ['claude:read'],
        ...fields,
      });

    it.each([
      ['expires with it unless told', {}, MAKER_EXPIRES_AT],
      ['may expire sooner', { expiresAt: inMinutes(30) }, null],
      ['may expire with it', { expiresAt: MAKER_EXPIRES_AT }, MAKER_EXPIRES_AT],
    ])('%s', async (_, fields: { expiresAt?: string }, expiresAt) => {
      const { status, body } = await make(await makerWith(MAKER_EXPIRES_AT), fields);
      expect([status, body.expiresAt]).toEqual([201, expiresAt ?? fields.expiresAt]);
    });

    it.each([
      ['later', inMinutes(61)],
      ['never', null],
    ])('cannot expire %s', async (_, expiresAt) => {
      const { status, body } = await make(await makerWith(MAKER_EXPIRES_AT), { expiresAt });
      expect([status, body.code]).toEqual([403, 'forbidden']);
      expect(body.errors).toMatchObject([{ pointer: '/expiresAt', code: 'too_late' }]);
      expect(body.detail).toContain(MAKER_EXPIRES_AT);
    });

    it.each<[string, { expiresAt?: string | null }]>([
      ['nothing', {}],
      ['never', { expiresAt: null }],
      ['a time', { expiresAt: inMinutes(61) }],
    ])('expires as it is told where that never does: %s', async (_, fields) => {
      const { status, body } = await make(await makerWith(null), fields);
      expect([status, body.expiresAt]).toEqual([201, fields.expiresAt ?? null]);
    });

    it('and with a password may outlive the access token', async () => {
      const { body } = await make(owner, { expiresAt: inMinutes(600) });
      expect(body.expiresAt).not.toBeNull();
      expect((await make(owner, {})).body.expiresAt).toBeNull();
    });
  });

  it('tells when it was last used', async () => {
    const created = await createKey(owner);
    expect((await find(owner, created.id))!.lastUsedAt).toBeNull();
    await statusOf(withKey(created));
    // It is noted beside the request, which does not wait for it.
    let used: ApiKey | undefined;
    do used = await find(owner, created.id);
    while (used?.lastUsedAt == null);
    expect(Date.parse(used.lastUsedAt)).toBeGreaterThanOrEqual(Date.parse(created.createdAt));
  });

  it('and every token of an account that is disabled are refused at once', async () => {
    const user = await signInAsNewUser(runner);
    const key = withKey(await createKey(user));
    const sockets = [await RecordedSocket.connect(user), await RecordedSocket.connect(key)];
    await runner.stores.query('UPDATE users SET disabled_at = now() WHERE id = $1', [userIdOf(user)]);
    expect([await statusOf(user), await statusOf(key)]).toEqual([401, 401]);
    for (const socket of sockets) {
      expect(await socket.ask('claude:execute', { prompt: 'Hello' })).toMatchObject({
        ok: false,
        error: { code: 'unauthenticated' },
      });
      socket.close();
    }
  });
});

describe('a login', () => {
  const login = (fields: object, url = runner.url) =>
    new ApiClient(url, null).request<AccessToken & Problem>('POST', '/api/v1/auth/login', {
      email: ADMIN_EMAIL,
      password: ADMIN_PASSWORD,
      ...fields,
    });

  it('gives a token for 15 minutes, however the address is capitalised', async () => {
    const { status, body } = await login({ email: ADMIN_EMAIL.toUpperCase() });
    expect(status).toBe(200);
    expect(body.tokenType).toBe('Bearer');
    const lifetimeMs = Date.parse(body.expiresAt) - Date.now();
    expect(lifetimeMs).toBeGreaterThan(14 * 60_000);
    expect(lifetimeMs).toBeLessThanOrEqual(15 * 60_000);
  });

  it('does not tell a wrong password from an address that nobody has, nor from a disabled account', async () => {
    const disabled = await signInAsNewUser(runner);
    const [{ email }] = (await runner.stores.query<{ email: string }>(
      'UPDATE users SET disabled_at = now() WHERE id = $1 RETURNING email',
      [userIdOf(disabled)],
    )) as [{ email: string }];
    const answers = await Promise.all([
      login({ password: 'a wrong password' }),
      login({ email: 'nobody@claude-runner.local' }),
      login({ email, password: 'the password of a user' }),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([401, 401, 401]);
    const [wrong, ...others] = answers.map(({ body }) => ({ ...body, requestId: null }));
    expect(wrong).toMatchObject({ code: 'credentials_wrong', errors: [] });
    expect(others).toEqual([wrong, wrong]);
  });

  it('at two servers at once is signed with one key, and each takes the tokens of the other', async () => {
    const second = await startBeside(runner);
    const urls = [runner.url, second.url];
    try {
      await runner.stores.query('DELETE FROM signing_keys');
      const logins = await Promise.all([...urls, ...urls, ...urls].map((url) => login({}, url)));
      expect(await runner.stores.query('SELECT count(*)::int AS keys FROM signing_keys')).toEqual([
        { keys: 1 },
      ]);
      for (const { body } of logins)
        for (const url of urls)
          expect((await new ApiClient(url, body.accessToken).request('GET', PROCESSES)).status).toBe(200);
    } finally {
      await second.close();
    }
  });
});
