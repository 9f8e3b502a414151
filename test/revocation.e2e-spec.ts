import type { CreatedApiKey } from '../src/auth/auth.schemas.js';
import type { RunningServer } from '../src/server.js';
import { ApiClient } from './support/api-client.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { startBeside, startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser, userIdOf } from './support/users.js';

/** Sooner than the look at what is open, by which alone it would take 10 s. */
const AT_ONCE_MS = 8_000;

let runner: TestServer;
let second: RunningServer;
let owner: ApiClient;

beforeAll(async () => {
  // It runs nothing: what is submitted waits, and so does whoever follows it.
  runner = await startTestServer({ ROLE: 'api' });
  second = await startBeside(runner);
  owner = await signInAsNewUser(runner);
});
afterAll(async () => {
  await second.close();
  await runner.stop();
});

const createKey = async (maker: ApiClient, fields: object = {}) =>
  (await maker.request<CreatedApiKey>('POST', '/api/v1/auth/api-keys', { name: 'A key', ...fields })).body;

const at = ({ url }: { url: string }, token: string | null) => new ApiClient(url, token);

/** A socket and two event streams, opened with these credentials. */
async function openAll(client: ApiClient) {
  const { id } = await client.submit({ prompt: 'Wait.' });
  const socket = await RecordedSocket.connect(client);
  await socket.askFor('claude:status', { processId: id, after: 0 });
  const stream = client.stream(id);
  await stream.next();
  const executing = await client.fetch('/api/v1/claude/execute', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'text/event-stream' },
    body: JSON.stringify({ prompt: 'Wait, too.' }),
  });
  return {
    socket,
    refusal: new Promise((resolve) => socket.socket.once('connect_error', resolve)),
    streams: [outcomeOf(readToEnd(stream)), outcomeOf(executing.text())],
  };
}

const outcomeOf = (reading: Promise<unknown>) =>
  reading.then(
    () => 'ended',
    (error: unknown) => (error as Error).message,
  );

async function readToEnd(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

/** Resolves when all of it is over: the streams reset, not ended, and the socket told why when it comes again. */
async function expectAllClosed({ socket, refusal, streams }: Awaited<ReturnType<typeof openAll>>) {
  expect(await Promise.all(streams)).toEqual(['terminated', 'terminated']);
  expect(await refusal).toMatchObject({ data: { code: 'unauthenticated' } });
  socket.close();
}

it('a key that is revoked closes at once what it opened, on every server', async () => {
  const { id, key } = await createKey(owner);
  const opened = [await openAll(at(runner, key)), await openAll(at(second, key))];
  const began = performance.now();
  await owner.request('DELETE', `/api/v1/auth/api-keys/${id}`);
  for (const each of opened) await expectAllClosed(each);
  expect(performance.now() - began).toBeLessThan(AT_ONCE_MS);
});

it('what was opened with other credentials of the same account stays open', async () => {
  const [revoked, kept] = [await createKey(owner), await createKey(owner)];
  const [closed, ...open] = [
    await openAll(at(runner, revoked.key)),
    await openAll(at(runner, kept.key)),
    await openAll(owner),
  ] as const;
  await owner.request('DELETE', `/api/v1/auth/api-keys/${revoked.id}`);
  await expectAllClosed(closed);
  for (const { socket } of open) {
    expect(await socket.ask('claude:execute', { prompt: 'Wait.' })).toMatchObject({ ok: true });
    socket.close();
  }
});

it('an answer that is waited for still comes', async () => {
  const { id, key } = await createKey(owner);
  const prompt = `Wait for it ${id}`;
  const waiting = at(runner, key).execute({ prompt });
  const find = () =>
    runner.stores.query<{ id: string }>('SELECT id FROM processes WHERE prompt = $1', [prompt]);
  let [process] = await find();
  while (!process) [process] = await find();
  const opened = await openAll(at(runner, key));
  await owner.request('DELETE', `/api/v1/auth/api-keys/${id}`);
  await expectAllClosed(opened);
  await owner.cancel(process.id);
  expect(await waiting).toMatchObject({ status: 200, body: { id: process.id, status: 'cancelled' } });
});

it('credentials that expire close what they opened, no sooner', async () => {
  const expiresAt = new Date(Date.now() + 6_000).toISOString();
  const { key } = await createKey(owner, { expiresAt });
  await expectAllClosed(await openAll(at(runner, key)));
  expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(expiresAt) - 1);
});

it('what nobody was told of is found all the same: a key, or an account, that is no more', async () => {
  const change = (sql: string, id: string) => runner.stores.query(sql, [id]);
  const users = [await signInAsNewUser(runner), await signInAsNewUser(runner), await signInAsNewUser(runner)];
  const [disabled, deleted, user] = users as [ApiClient, ApiClient, ApiClient];
  const [revoked, expired] = [await createKey(user), await createKey(user)];
  const opened = [
    await openAll(disabled),
    await openAll(at(second, (await createKey(disabled)).key)),
    await openAll(deleted),
    await openAll(at(runner, revoked.key)),
    await openAll(at(second, expired.key)),
  ];
  const open = await openAll(user);
  await change('UPDATE users SET disabled_at = now() WHERE id = $1', userIdOf(disabled));
  await change('DELETE FROM users WHERE id = $1', userIdOf(deleted));
  await change('UPDATE api_keys SET revoked_at = now() WHERE id = $1', revoked.id);
  await change('UPDATE api_keys SET expires_at = now() WHERE id = $1', expired.id);
  for (const each of opened) await expectAllClosed(each);
  expect(open.socket.heard.map(({ name }) => name)).not.toContain('disconnect');
  open.socket.close();
});
