import type { Process } from '../src/processes/processes.schemas.js';
import { ApiClient } from './support/api-client.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser } from './support/users.js';

let runner: TestServer;
const sockets: RecordedSocket[] = [];

beforeAll(async () => {
  runner = await startTestServer({ WORKER_CONCURRENCY: '2' });
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
});
afterAll(() => runner.stop());

/** Closed after the test. */
async function connect(client: ApiClient = runner.client): Promise<RecordedSocket> {
  const socket = await RecordedSocket.connect(client);
  sockets.push(socket);
  return socket;
}

const logOf = async (id: string) => (await runner.client.events(id, '?limit=1000')).items;

const turnOf = (prompt: string) =>
  runner.messages.waitForRequest((request) => request.purpose === 'turn' && request.prompt === prompt);

/** A process that runs until it is cancelled. */
async function startHanging(name: string): Promise<Process> {
  const prompt = `${name}\n[[hang]]`;
  const process = await runner.client.submit({ prompt });
  await turnOf(prompt);
  return process;
}

describe('claude:execute', () => {
  it('is acknowledged first; then come the place in the queue, the log in order and the completion', async () => {
    const socket = await connect();
    const process = await socket.askFor('claude:execute', {
      prompt: '[[text One two three four]]\n[[deltas 4 50]]',
      metadata: { by: 'socket' },
    });
    expect(process).toMatchObject({ status: 'pending', metadata: { by: 'socket' } });
    await socket.untilEnd(process.id);

    const log = await logOf(process.id);
    const ended = await runner.client.find(process.id);
    expect(ended).toMatchObject({ status: 'completed', result: 'One two three four' });
    expect(socket.heard).toEqual([
      { name: 'ack', told: { ok: true, process, idempotentReplayed: false } },
      // A slot is free.
      {
        name: 'claude:queued',
        told: { processId: process.id, position: 1, estimatedStartAt: expect.any(String) as string },
      },
      ...log.map((event) => ({ name: 'claude:progress', told: event })),
      { name: 'claude:complete', told: { processId: process.id, seq: log.length, process: ended } },
    ]);
  });

  it('of what fails ends with claude:error, which has the process and its error', async () => {
    const socket = await connect();
    const { id } = await socket.askFor('claude:execute', { prompt: '[[status 400]]' });
    await socket.untilEnd(id);
    const process = await runner.client.find(id);
    expect(process.error).toMatchObject({ code: 'upstream_invalid_request' });
    expect(socket.heard.at(-1)).toEqual({
      name: 'claude:error',
      told: { processId: id, seq: process.lastSeq, process, error: process.error },
    });
    expect(socket.all('claude:complete', id)).toEqual([]);
    expect(socket.log(id)).toEqual(await logOf(id));
  });

  it('of what is cancelled ends with claude:complete', async () => {
    const socket = await connect();
    const prompt = 'Cancelled in the middle\n[[hang]]';
    const { id } = await socket.askFor('claude:execute', { prompt });
    await turnOf(prompt);
    await socket.askFor('claude:cancel', { processId: id });
    await socket.untilEnd(id);
    expect(socket.all('claude:error', id)).toEqual([]);
    expect(socket.all('claude:complete', id)).toEqual([
      expect.objectContaining({ process: expect.objectContaining({ status: 'cancelled' }) as Process }),
    ]);
  });

  it('three times on one socket: each has its own log, in its own order', async () => {
    const socket = await connect();
    const words = ['alpha', 'beta', 'gamma'];
    const processes = await Promise.all(
      words.map((word) => socket.askFor('claude:execute', { prompt: `[[text ${word}]]\n[[deltas 5 20]]` })),
    );
    for (const { id } of processes) await socket.untilEnd(id);
    for (const [index, { id }] of processes.entries()) {
      expect(socket.log(id)).toEqual(await logOf(id));
      expect(socket.all('claude:complete', id)).toEqual([
        expect.objectContaining({ process: expect.objectContaining({ result: words[index] }) as Process }),
      ]);
    }
  });
});

describe('claude:queued', () => {
  it('comes again when the place in the queue changes, and no more once the process runs', async () => {
    const running = [await startHanging('First'), await startHanging('Second')];
    const socket = await connect();
    const ahead = await runner.client.submit({ prompt: 'Ahead' });
    const { id, queuePosition } = await socket.askFor('claude:execute', { prompt: '[[text My turn.]]' });
    expect(queuePosition).toBe(2);
    const positions = () => socket.all('claude:queued', id).map(({ position }) => position);
    await socket.until(() => positions().length > 0);
    expect(positions()).toEqual([2]);

    await runner.client.cancel(ahead.id);
    await socket.until(() => positions().length > 1);
    expect(positions()).toEqual([2, 1]);

    for (const process of running) await runner.client.cancel(process.id);
    await socket.untilEnd(id);
    expect(positions()).toEqual([2, 1]);
    const firstOfRun = socket.heard.findIndex(
      ({ name, told }) => name === 'claude:progress' && told.type === 'started',
    );
    expect(socket.heard.slice(firstOfRun).filter(({ name }) => name === 'claude:queued')).toEqual([]);
  });
});

describe('claude:status', () => {
  it('without after tells where the process stands, and follows nothing', async () => {
    const socket = await connect();
    const { id } = await startHanging('Asked about');
    expect(await socket.askFor('claude:status', { processId: id })).toMatchObject({ id, status: 'running' });
    await runner.client.cancel(id);
    const ended = await runner.client.untilEnded(id);
    expect(await socket.askFor('claude:status', { processId: id })).toEqual(ended);
    expect(socket.heard.map(({ name }) => name)).toEqual(['ack', 'ack']);
  });

  it('with after follows from there: first what was missed, then live', async () => {
    const socket = await connect();
    const { id } = await runner.client.submit({ prompt: '[[deltas 10 50]]' });
    await runner.client.waitForEvent(id, ({ type }) => type === 'text');
    await socket.askFor('claude:status', { processId: id, after: 1 });
    await socket.untilEnd(id);
    expect(socket.heard[0]?.name).toBe('ack');
    expect(socket.log(id)).toEqual((await logOf(id)).slice(1));
  });

  it('with another after begins anew from there, in place of the first follow', async () => {
    const socket = await connect();
    const { id } = await runner.client.submit({ prompt: '[[deltas 60 100]]' });
    await socket.askFor('claude:status', { processId: id, after: 0 });
    await socket.until(() => socket.log(id).some(({ type }) => type === 'text'));
    await socket.askFor('claude:status', { processId: id, after: 2 });
    const second = socket.heard.findLastIndex(({ name }) => name === 'ack');
    await socket.untilEnd(id);
    const heard = socket.heard.slice(second + 1);
    const log = await logOf(id);
    expect(heard.flatMap(({ name, told }) => (name === 'claude:progress' ? [told] : []))).toEqual(
      log.slice(2),
    );
    expect(socket.all('claude:complete', id)).toHaveLength(1);
  });

  it('with a seq that the log has not come to is refused', async () => {
    const socket = await connect();
    const { body } = await runner.client.execute({ prompt: '[[text Done.]]' });
    expect(await socket.ask('claude:status', { processId: body.id, after: body.lastSeq + 1 })).toMatchObject({
      ok: false,
      error: { status: 400, code: 'cursor_invalid' },
    });
  });
});

describe('claude:unfollow', () => {
  it('ends the following, not the process', async () => {
    const socket = await connect();
    const { id } = await socket.askFor('claude:execute', { prompt: '[[deltas 60 100]]' });
    await socket.until(() => socket.log(id).some(({ type }) => type === 'text'));
    expect(await socket.askFor('claude:unfollow', { processId: id })).toMatchObject({ status: 'running' });
    const heard = socket.log(id);

    expect(await runner.client.untilEnded(id)).toMatchObject({ status: 'completed' });
    await socket.askFor('claude:status', { processId: id });
    expect(socket.log(id)).toEqual(heard);
    expect(socket.all('claude:complete', id)).toEqual([]);
    expect(heard.length).toBeLessThan((await logOf(id)).length);
  });
});

describe('several sockets', () => {
  it('follow one process, each whole; one that leaves does not disturb the others', async () => {
    const [first, second, leaving] = [await connect(), await connect(), await connect()];
    const { id } = await first.askFor('claude:execute', { prompt: '[[deltas 12 50]]' });
    await second.askFor('claude:status', { processId: id, after: 0 });
    await leaving.askFor('claude:status', { processId: id, after: 0 });
    await leaving.until(() => leaving.log(id).some(({ type }) => type === 'text'));
    leaving.close();
    await Promise.all([first.untilEnd(id), second.untilEnd(id)]);
    const log = await logOf(id);
    expect(log.at(-1)?.type).toBe('completed');
    expect(first.log(id)).toEqual(log);
    expect(second.log(id)).toEqual(log);
  });
});

describe('a socket that loses its connection', () => {
  it('reconnects by itself and resumes with the seq that it has', async () => {
    const socket = await connect();
    const { id } = await socket.askFor('claude:execute', { prompt: '[[deltas 40 50]]' });
    await socket.until(() => socket.log(id).some(({ type }) => type === 'text'));
    const reconnected = new Promise((resolve) => socket.socket.once('connect', () => resolve(null)));
    socket.socket.io.engine.close();
    await reconnected;
    expect(socket.heard.filter(({ name }) => name === 'disconnect')).toHaveLength(1);
    // What has come after the connection was lost is not sent unasked.
    await socket.askFor('claude:status', { processId: id, after: socket.log(id).at(-1)!.seq });
    await socket.untilEnd(id);
    expect(socket.log(id)).toEqual(await logOf(id));
  });

  it('ends what it created with cancelOnDisconnect', async () => {
    const socket = await connect();
    const prompt = 'Until the socket leaves\n[[hang]]';
    const { id } = await socket.askFor('claude:execute', { prompt, cancelOnDisconnect: true });
    await turnOf(prompt);
    socket.close();
    const process = await runner.client.untilEnded(id);
    expect(process).toMatchObject({
      status: 'cancelled',
      cancelRequestedAt: expect.any(String) as string,
    });
  });

  it('ends nothing otherwise', async () => {
    const socket = await connect();
    const prompt = 'Though the socket leaves\n[[delay 500]]\n[[text Done all the same.]]';
    const { id } = await socket.askFor('claude:execute', { prompt });
    await turnOf(prompt);
    socket.close();
    expect(await runner.client.untilEnded(id)).toMatchObject({
      status: 'completed',
      result: 'Done all the same.',
      cancelRequestedAt: null,
    });
  });
});

describe('a socket that asks and does not read', () => {
  const pause = ({ socket }: RecordedSocket) => {
    const { ws } = socket.io.engine.transport as unknown as { ws: { pause(): void; resume(): void } };
    ws.pause();
    return () => ws.resume();
  };
  let large: Process;

  beforeAll(async () => {
    large = await runner.client.submit({ prompt: `${'x'.repeat(1_000_000)}\n[[hang]]` });
  });
  afterAll(() => runner.client.cancel(large.id));

  it('gets every answer once it reads, in the order of its messages', async () => {
    const socket = await connect();
    const resume = pause(socket);
    const asked = Array.from({ length: 40 }, (_, n) =>
      n % 2 === 0
        ? socket.ask('claude:status', { processId: large.id })
        : socket.ask('claude:nothing', { number: n }),
    );
    resume();
    const answers = await Promise.all(asked);
    expect(answers.map(({ ok }) => ok)).toEqual(asked.map((_, n) => n % 2 === 0));
  });

  it('is disconnected when it asks on and on, and has not been answered all of it', async () => {
    const socket = await connect();
    const resume = pause(socket);
    let answered = 0;
    for (let count = 0; count < 300; count += 1)
      socket.socket.emit('claude:status', { processId: large.id }, () => (answered += 1));
    resume();
    await socket.until((heard) => heard.some(({ name }) => name === 'disconnect'));
    expect(answered).toBeLessThan(50);
  });
});

describe('a bad message', () => {
  const bad: [string, unknown, object][] = [
    ['claude:execute', {}, { code: 'validation_failed', errors: [{ pointer: '/prompt' }] }],
    ['claude:execute', 'prompt', { code: 'validation_failed' }],
    ['claude:execute', null, { code: 'validation_failed' }],
    [
      'claude:execute',
      { prompt: 'x', sudo: true },
      { code: 'validation_failed', errors: [{ pointer: '/sudo', code: 'unknown_field' }] },
    ],
    [
      'claude:execute',
      { prompt: 'x', outputSchema: {} },
      { status: 400, code: 'validation_failed', errors: [{ pointer: '/outputSchema/type' }] },
    ],
    ['claude:status', { processId: 'nonsense' }, { errors: [{ pointer: '/processId' }] }],
    [
      'claude:status',
      { processId: '01936f00-0000-7000-8000-000000000000', after: -1 },
      { errors: [{ pointer: '/after' }] },
    ],
    [
      'claude:cancel',
      { processId: '01936f00-0000-7000-8000-000000000000' },
      { code: 'process_not_found', status: 404 },
    ],
  ];

  it.each(bad)('%s %j is refused in its ack', async (event, message, problem) => {
    const socket = await connect();
    expect(await socket.ask(event, message)).toMatchObject({
      ok: false,
      error: { ...problem, instance: event },
    });
    expect(socket.heard.map(({ name }) => name)).toEqual(['ack']);
  });

  it.each(bad)('%s %j without an ack is answered by claude:error', async (event, message, problem) => {
    const socket = await connect();
    socket.socket.emit(event, message);
    await socket.until((heard) => heard.length > 0);
    expect(socket.heard).toEqual([
      {
        name: 'claude:error',
        told: { error: expect.objectContaining({ type: expect.any(String) as string }) as object },
      },
    ]);
    expect(socket.heard[0]?.told).toMatchObject({ error: { ...problem, instance: event } });
  });

  it('leaves the socket as it was', async () => {
    const socket = await connect();
    await socket.ask('claude:execute', { prompt: 7 });
    const { id } = await socket.askFor('claude:execute', { prompt: '[[text Still here.]]' });
    await socket.untilEnd(id);
    expect(socket.all('claude:complete', id)).toHaveLength(1);
  });
});

describe('a good message without an ack', () => {
  it('does what it says, too', async () => {
    const socket = await connect();
    const prompt = 'Nobody asks back\n[[hang]]';
    socket.socket.emit('claude:execute', { prompt });
    await socket.until((heard) => heard.some(({ name }) => name === 'claude:progress'));
    const [first] = socket.heard.filter((heard) => heard.name === 'claude:progress');
    const { processId } = first!.told;
    await turnOf(prompt);
    socket.socket.emit('claude:cancel', { processId });
    await socket.untilEnd(processId);
    expect(await runner.client.find(processId)).toMatchObject({ prompt, status: 'cancelled' });
    expect(socket.log(processId)).toEqual(await logOf(processId));
  });
});

describe('a connection', () => {
  it.each([
    ['no token', null],
    ['an empty token', ''],
    ['a token that is none', 'nonsense'],
    ['a key that nobody has', 'crk_00000000000000000000000000_0000000000000000000000000000000000000000000'],
  ])('with %s is refused as unauthenticated', async (_, token) => {
    await expect(RecordedSocket.connect(new ApiClient(runner.url, token))).rejects.toMatchObject({
      data: { status: 401, code: 'unauthenticated', title: expect.any(String) as string },
    });
  });

  it('stands with an API key, and with an access token', async () => {
    for (const client of [runner.client, runner.administrator]) {
      const socket = await connect(client);
      expect(socket.socket.connected).toBe(true);
    }
  });
});

describe("another user's process", () => {
  it('is not found by any message, and goes on', async () => {
    const { id } = await startHanging('Somebody else is curious');
    const stranger = await connect(await signInAsNewUser(runner));
    for (const [event, message] of [
      ['claude:status', { processId: id }],
      ['claude:status', { processId: id, after: 0 }],
      ['claude:unfollow', { processId: id }],
      ['claude:cancel', { processId: id }],
    ] as const) {
      expect(await stranger.ask(event, message)).toMatchObject({
        ok: false,
        error: { status: 404, code: 'process_not_found' },
      });
    }
    expect(await runner.client.find(id)).toMatchObject({ status: 'running', cancelRequestedAt: null });
    await runner.client.cancel(id);
    await runner.client.untilEnded(id);
    expect(stranger.heard.map(({ name }) => name)).toEqual(['ack', 'ack', 'ack', 'ack']);
  });
});
