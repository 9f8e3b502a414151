import type { CreatedApiKey } from '../src/auth/auth.schemas.js';
import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { type Answer, ApiClient } from './support/api-client.js';
import { readEventStream } from './support/event-stream-reader.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { startTcpProxy, type TcpProxy } from './support/tcp-proxy.js';
import { startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser } from './support/users.js';

const EXECUTE = '/api/v1/claude/execute';

let runner: TestServer;
let proxy: TcpProxy;

beforeAll(async () => {
  runner = await startTestServer(async ({ databaseUrl }) => {
    proxy = await startTcpProxy(databaseUrl);
    return { DATABASE_URL: proxy.url };
  });
});
afterEach(() => runner.messages.reset());
afterAll(async () => {
  await runner.stop();
  await proxy.close();
});

const post = <Body = Process>(key: string, body: object, client = runner.client, path = EXECUTE) =>
  client.request<Body>('POST', path, body, { 'Idempotency-Key': key });

const postAsync = <Body = Process>(key: string, body: object, client = runner.client) =>
  post<Body>(key, body, client, `${EXECUTE}/async`);

const isReplayed = ({ headers }: Answer<unknown>) => headers.get('Idempotent-Replayed');

const countOf = async (prompt: string) =>
  (await runner.stores.query('SELECT 1 FROM processes WHERE prompt = $1', [prompt])).length;

const logOf = async (id: string) => (await runner.client.events(id, '?limit=1000')).items;

const untilAsked = (prompt: string) => runner.messages.waitForRequest((request) => request.prompt === prompt);

async function ask(message: object, client = runner.client) {
  const socket = await RecordedSocket.connect(client);
  return { socket, answer: await socket.ask('claude:execute', message) };
}

describe('a request that is sent again under its key', () => {
  it('waits for the end of the process that it has made', async () => {
    const body = { prompt: 'Wait twice\n[[delay 1500]]\n[[text Here.]]' };
    const first = await postAsync('waits', body);
    expect(first).toMatchObject({ status: 202, body: { status: 'pending' } });
    expect(isReplayed(first)).toBeNull();
    const again = await post('waits', body);
    expect(again).toMatchObject({
      status: 200,
      body: { id: first.body.id, status: 'completed', result: 'Here.' },
    });
    expect(isReplayed(again)).toBe('true');
    expect(await countOf(body.prompt)).toBe(1);
  });

  it('is answered at once when that has ended, and as it was then', async () => {
    const first = await post('ended', { prompt: '[[text Once.]]' });
    const again = await post('ended', { prompt: '[[text Once.]]' });
    expect(again).toMatchObject({ status: 200, body: first.body });
    expect(await postAsync('ended', { prompt: '[[text Once.]]' })).toMatchObject({ body: first.body });
  });

  it('is the same in another order, and with defaults written out', async () => {
    const body = { prompt: '[[text The same.]]', metadata: { a: '1', b: '2' }, maxTurns: 3 };
    const { body: process } = await post('same', body);
    const again = { maxTurns: 3, metadata: { b: '2', a: '1' }, priority: 5, prompt: '[[text The same.]]' };
    expect(await post('same', again)).toMatchObject({ body: { id: process.id } });
  });

  it('streams the process from its first event', async () => {
    const { body: process } = await post('streams', { prompt: '[[deltas 5 20]]' });
    const response = await runner.client.fetch(EXECUTE, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        Accept: 'text/event-stream',
        'Idempotency-Key': 'streams',
      },
      body: JSON.stringify({ prompt: '[[deltas 5 20]]' }),
    });
    expect(response.headers.get('Idempotent-Replayed')).toBe('true');
    const events: ProcessEvent[] = [];
    for await (const { data } of readEventStream(response)) events.push(JSON.parse(data) as ProcessEvent);
    expect(events).toEqual(await logOf(process.id));
  });

  it('over a socket follows the process from its first event, whichever route made it', async () => {
    const prompt = 'From a route\n[[delay 1000]]\n[[text Both.]]';
    const { body: process } = await postAsync('socket', { prompt });
    await untilAsked(prompt);
    const { socket, answer } = await ask({ prompt, idempotencyKey: 'socket' });
    expect(answer).toMatchObject({ ok: true, process: { id: process.id }, idempotentReplayed: true });
    await socket.untilEnd(process.id);
    expect(socket.log(process.id)).toEqual(await logOf(process.id));
    expect(isReplayed(await post('socket', { prompt }))).toBe('true');
    socket.close();
  });

  it('makes one process, though it is sent a hundred times at once', async () => {
    const prompt = 'Once for a hundred\n[[text One.]]';
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, n) => (n % 2 === 0 ? post : postAsync)('hundred', { prompt })),
    );
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    expect(answers.filter((answer) => isReplayed(answer) === null)).toHaveLength(1);
    expect(answers.filter(({ status }) => status !== 200 && status !== 202)).toEqual([]);
    expect(await countOf(prompt)).toBe(1);
    expect(await runner.client.untilEnded(answers[0]!.body.id)).toMatchObject({ result: 'One.' });
    const asked = runner.messages.requests.filter((request) => request.prompt === prompt);
    expect(asked.filter(({ purpose }) => purpose === 'turn')).toHaveLength(1);
  });
});

describe('a key', () => {
  it('that stands for another request is refused, the same over every transport', async () => {
    const { body: process } = await post('taken', { prompt: '[[text First.]]' });
    const other = { prompt: '[[text Second.]]' };
    const refused = { status: 422, code: 'idempotency_key_reused' };
    for (const send of [post, postAsync])
      expect(await send('taken', other)).toMatchObject({ status: 422, body: refused });
    const { socket, answer } = await ask({ ...other, idempotencyKey: 'taken' });
    expect(answer).toMatchObject({ ok: false, error: refused });
    socket.close();
    expect(await countOf(other.prompt)).toBe(0);
    expect(await runner.client.find(process.id)).toEqual(process);
  });

  it('is the user’s, with whatever credentials they come, and nobody else’s', async () => {
    const user = await signInAsNewUser(runner);
    const { body: key } = await user.request<CreatedApiKey>('POST', '/api/v1/auth/api-keys', {
      name: 'A key',
    });
    const body = { prompt: '[[text Mine.]]' };
    const { body: mine } = await post('mine', body, user);
    expect((await post('mine', body, new ApiClient(runner.url, key.key))).body.id).toBe(mine.id);
    const theirs = await post('mine', body, await signInAsNewUser(runner));
    expect(theirs.body.id).not.toBe(mine.id);
    expect(isReplayed(theirs)).toBeNull();
  });

  it('of a request that was refused is free', async () => {
    expect(await post('free', { prompt: 'Hello', tools: ['Teleport'] })).toMatchObject({ status: 422 });
    expect(await post('free', { prompt: '[[text Now.]]' })).toMatchObject({
      status: 200,
      body: { result: 'Now.' },
    });
  });
});

describe('cancelOnDisconnect', () => {
  it('is about the connection that made the process: who joins comes and goes', async () => {
    const prompt = 'Until its maker leaves\n[[hang]]';
    const message = { prompt, cancelOnDisconnect: true, idempotencyKey: 'leaves' };
    const maker = await ask(message);
    await untilAsked(prompt);
    const { id } = (maker.answer as { process: Process }).process;

    const guest = await ask(message);
    expect(guest.answer).toMatchObject({ ok: true, process: { id }, idempotentReplayed: true });
    guest.socket.close();
    const leaving = new AbortController();
    const joined = await runner.client.fetch(EXECUTE, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        Accept: 'text/event-stream',
        'Idempotency-Key': 'leaves',
      },
      body: JSON.stringify({ prompt, cancelOnDisconnect: true }),
      signal: leaving.signal,
    });
    expect(joined.headers.get('Idempotent-Replayed')).toBe('true');
    leaving.abort();
    // It would end within this time, if their leaving meant anything.
    for (let n = 0; n < 2; n += 1)
      expect(await runner.client.find(id, { Prefer: 'wait=1' })).toMatchObject({
        status: 'running',
        cancelRequestedAt: null,
      });

    maker.socket.close();
    expect(await runner.client.untilEnded(id)).toMatchObject({ status: 'cancelled' });
  });
});

describe('a submit that is not answered by the database', () => {
  it('is found by the server itself', async () => {
    const prompt = 'Lost on the way back\n[[text Found.]]';
    proxy.swallowAnswers({ to: /WITH share AS/, times: 1 });
    const { status, body } = await runner.client.execute({ prompt });
    expect(proxy.swallowed).toBe(1);
    expect([status, body.result]).toEqual([200, 'Found.']);
    expect(await countOf(prompt)).toBe(1);
    proxy.restore();
  });

  it('is not called unavailable to a caller who has no key, and would send it again', async () => {
    const prompt = 'Lost without a name\n[[text Made.]]';
    const before = proxy.swallowed;
    proxy.swallowAnswers({ to: /WITH share AS/, times: 1 });
    const lost = runner.client.request('POST', `${EXECUTE}/async`, { prompt });
    while (proxy.swallowed === before) await new Promise((resolve) => setImmediate(resolve));
    proxy.cut();
    const { status, headers, body } = await lost;
    expect([status, body.code, body.retryable, headers.get('retry-after')]).toEqual([
      ...[504, 'outcome_unknown', false, null],
    ]);
    proxy.restore();
    const id = /process (\S+) was made/.exec(body.detail)?.[1] ?? '';
    expect(await runner.client.untilEnded(id)).toMatchObject({ id, prompt, result: 'Made.' });
  });

  it('is joined by the caller who asks again, when the server could not tell', async () => {
    const prompt = 'Lost for good\n[[text Joined.]]';
    const before = proxy.swallowed;
    proxy.swallowAnswers({ to: /WITH share AS/, times: 1 });
    const lost = postAsync('lost', { prompt });
    while (proxy.swallowed === before) await new Promise((resolve) => setImmediate(resolve));
    proxy.cut();
    expect(await lost).toMatchObject({ status: 503, body: { code: 'unavailable', retryable: true } });
    proxy.restore();
    const again = await post('lost', { prompt });
    expect(again).toMatchObject({ status: 200, body: { result: 'Joined.' } });
    expect(isReplayed(again)).toBe('true');
    expect(await countOf(prompt)).toBe(1);
  });
});
