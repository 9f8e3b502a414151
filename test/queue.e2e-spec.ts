import type { Health, Queue } from '../src/claude/claude.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { ApiClient } from './support/api-client.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { startTcpProxy, type TcpProxy } from './support/tcp-proxy.js';
import { startBeside, startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser } from './support/users.js';

const EXECUTE = '/api/v1/claude/execute';
const QUEUE = '/api/v1/claude/queue';

describe('a queue that is full', () => {
  const MAX = 8;
  const MAX_PER_USER = 5;
  let runner: TestServer;

  beforeAll(async () => {
    // It runs nothing: what is submitted waits.
    runner = await startTestServer({
      ROLE: 'api',
      EXECUTE_MAX_WAIT_MS: '1',
      QUEUE_MAX_PENDING: String(MAX),
      QUEUE_MAX_PENDING_PER_USER: String(MAX_PER_USER),
    });
  });
  beforeEach(() => runner.stores.query('TRUNCATE sessions CASCADE'));
  afterAll(() => runner.stop());

  const fill = async (client: ApiClient, count: number) => {
    const processes: Process[] = [];
    for (let n = 0; n < count; n += 1) processes.push(await client.submit({ prompt: 'Wait.' }));
    return processes;
  };
  const count = async () => (await runner.stores.query('SELECT 1 FROM processes')).length;

  it('takes exactly as many as may wait of a hundred that come at once, and asks the others to come again', async () => {
    const user = await signInAsNewUser(runner);
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, n) =>
        user.request('POST', n % 2 === 0 ? EXECUTE : `${EXECUTE}/async`, { prompt: 'Wait.' }),
      ),
    );
    expect(answers.filter(({ status }) => status === 202)).toHaveLength(MAX_PER_USER);
    const refused = answers.filter(({ status }) => status !== 202);
    for (const { status, headers, body } of refused) {
      expect(status).toBe(429);
      expect(Number(headers.get('Retry-After'))).toBeGreaterThanOrEqual(1);
      expect(body).toMatchObject({ code: 'queue_full', retryable: true });
      expect(body.retryAfterMs).toBeGreaterThanOrEqual(1000);
    }
    expect(await count()).toBe(MAX_PER_USER);
  });

  it('is full for all, once as many wait as may in all, over sockets too', async () => {
    await fill(await signInAsNewUser(runner), MAX_PER_USER);
    await fill(await signInAsNewUser(runner), MAX - MAX_PER_USER);
    const late = await signInAsNewUser(runner);
    const overHttp = await late.request('POST', EXECUTE, { prompt: 'One more.' });
    expect(overHttp).toMatchObject({ status: 429, body: { code: 'queue_full' } });
    expect(overHttp.body.detail).toMatch(/^8 processes wait/);
    const socket = await RecordedSocket.connect(late);
    const answer = await socket.ask('claude:execute', { prompt: 'One more.' });
    const place = { instance: expect.any(String) as string, requestId: expect.any(String) as string };
    expect(answer).toEqual({ ok: false, error: { ...overHttp.body, ...place } });
    socket.close();
    expect(await count()).toBe(MAX);
  });

  it('takes one more when one has left', async () => {
    const user = await signInAsNewUser(runner);
    const [first] = await fill(user, MAX_PER_USER);
    expect(await user.execute({ prompt: 'One more.' })).toMatchObject({ status: 429 });
    await user.cancel(first!.id);
    expect(await user.execute({ prompt: 'One more.' })).toMatchObject({ status: 202 });
  });

  it('lets in who joins what they have made, under its key', async () => {
    const user = await signInAsNewUser(runner);
    const key = { 'Idempotency-Key': 'mine' };
    const { body: mine } = await user.execute({ prompt: 'Mine.' }, key);
    await fill(user, MAX_PER_USER - 1);
    expect(await user.execute({ prompt: 'Mine.' }, key)).toMatchObject({
      status: 202,
      body: { id: mine.id },
    });
    expect(await user.execute({ prompt: 'Mine.' }, { 'Idempotency-Key': 'new' })).toMatchObject({
      status: 429,
    });
  });

  it('without workers says nothing of when it will be shorter', async () => {
    const socket = await RecordedSocket.connect(await signInAsNewUser(runner));
    const { id } = await socket.askFor('claude:execute', { prompt: 'Wait.' });
    await socket.until(() => socket.all('claude:queued', id).length > 0);
    expect(socket.all('claude:queued', id)).toEqual([{ processId: id, position: 1, estimatedStartAt: null }]);
    socket.close();
  });
});

describe('a queue in front of one slot', () => {
  let runner: TestServer;
  let proxy: TcpProxy;
  let letGo: () => void;

  beforeAll(async () => {
    runner = await startTestServer(async ({ redisUrl }) => {
      proxy = await startTcpProxy(redisUrl);
      return { WORKER_CONCURRENCY: '1', RECONCILER_INTERVAL_MS: '200', REDIS_URL: proxy.url };
    });
    // Where something has ended, there is ground for a guess.
    await runner.client.execute({ prompt: '[[text Ended.]]' });
  });
  afterEach(() => runner.messages.reset());
  afterAll(async () => {
    await runner.stop();
    await proxy.close();
  });

  const isAsked = (prompt: string) => runner.messages.waitForRequest((request) => request.prompt === prompt);

  /** Takes the slot until it is let go. */
  async function occupy(): Promise<Process> {
    const prompt = `Hold the slot ${performance.now()}\n[[hang]]`;
    const process = await runner.client.submit({ prompt });
    await isAsked(prompt);
    letGo = () => void runner.client.cancel(process.id);
    return process;
  }

  const submit = (client: ApiClient, text: string, priority = 5) =>
    client.submit({ prompt: `[[text ${text}]]`, priority });

  /** In the order in which they started. */
  async function startedOrder(processes: Process[]): Promise<string[]> {
    const ended = await Promise.all(processes.map(({ id }) => runner.administrator.untilEnded(id)));
    expect(ended.map(({ status }) => status)).toEqual(processes.map(() => 'completed'));
    return ended.toSorted((a, b) => a.startedAt!.localeCompare(b.startedAt!)).map(({ result }) => result!);
  }

  it('lets callers take turns, and orders each one’s own by priority and age, as their places say', async () => {
    await occupy();
    const [a, b] = [await signInAsNewUser(runner), await signInAsNewUser(runner)];
    const processes: Process[] = [];
    for (let n = 1; n <= 3; n += 1) processes.push(await submit(a, `a-low-${n}`, 1));
    processes.push(await submit(a, 'a-high', 9), await submit(b, 'b-low', 0), await submit(b, 'b-high', 6));
    const found = await Promise.all(processes.map(({ id }) => runner.administrator.find(id)));
    const positions = found.map(({ queuePosition }) => queuePosition!);
    expect(positions.toSorted((x, y) => x - y)).toEqual([1, 2, 3, 4, 5, 6]);
    letGo();
    const order = await startedOrder(processes);
    expect(order.filter((name) => name.startsWith('a'))).toEqual(['a-high', 'a-low-1', 'a-low-2', 'a-low-3']);
    expect(order.filter((name) => name.startsWith('b'))).toEqual(['b-high', 'b-low']);
    // Turn by turn, while both have work waiting.
    expect(new Set(order.slice(0, 2).map((name) => name[0]))).toEqual(new Set(['a', 'b']));
    expect(new Set(order.slice(2, 4).map((name) => name[0]))).toEqual(new Set(['a', 'b']));
    const byPlace = processes
      .map(({ prompt }, n) => ({ name: prompt!.slice('[[text '.length, -2), position: positions[n]! }))
      .toSorted((x, y) => x.position - y.position);
    expect(order).toEqual(byPlace.map(({ name }) => name));
  });

  it('tells when the turn of each will be, and again when that changes', async () => {
    await occupy();
    const [ahead, mine] = [await submit(runner.client, 'ahead'), await submit(runner.client, 'mine')];
    const socket = await RecordedSocket.connect(runner.client);
    for (const { id } of [ahead, mine]) await socket.askFor('claude:status', { processId: id, after: 0 });
    const told = (id: string) => socket.all('claude:queued', id);
    await socket.until(() => told(ahead.id).length > 0 && told(mine.id).length > 0);
    const [first, second] = [told(ahead.id)[0]!, told(mine.id)[0]!];
    expect([first.position, second.position]).toEqual([1, 2]);
    expect(Date.parse(first.estimatedStartAt!)).toBeGreaterThan(Date.parse(mine.createdAt));
    expect(Date.parse(second.estimatedStartAt!)).toBeGreaterThan(Date.parse(first.estimatedStartAt!));

    await runner.client.cancel(ahead.id);
    await socket.until(() => told(mine.id).some(({ position }) => position === 1));
    // The longest run of late is what the next guess goes by: an hour, say.
    await runner.stores.query(
      `UPDATE processes SET started_at = finished_at - interval '1 hour' WHERE started_at IS NOT NULL AND finished_at IS NOT NULL`,
    );
    const isLater = ({ estimatedStartAt }: { estimatedStartAt: string | null }) =>
      Date.parse(estimatedStartAt!) > Date.now() + 10 * 60_000;
    await socket.until(() => told(mine.id).some(isLater));
    letGo();
    await socket.untilEnd(mine.id);
    socket.close();
  });

  it('answers a place at the end of it with 429 and the time of the next start', async () => {
    await occupy();
    await submit(runner.client, 'one');
    await runner.stores.query(
      `UPDATE processes SET started_at = finished_at - interval '2 minutes' WHERE started_at IS NOT NULL AND finished_at IS NOT NULL`,
    );
    const beside = await startBeside(runner, { QUEUE_MAX_PENDING: '1' });
    const client = new ApiClient(beside.url, runner.client.token);
    const { status, headers, body } = await client.request('POST', EXECUTE, { prompt: 'One more.' });
    await beside.close();
    expect([status, body.code]).toEqual([429, 'queue_full']);
    const seconds = Number(headers.get('Retry-After'));
    expect(seconds).toBeGreaterThan(60);
    expect(seconds).toBeLessThanOrEqual(120);
    letGo();
  });

  describe('that is paused', () => {
    const queue = async () => (await runner.administrator.request<Queue>('GET', QUEUE)).body;
    const turn = (how: 'pause' | 'resume') => runner.administrator.request<Queue>('POST', `${QUEUE}/${how}`);
    const health = async () =>
      (await runner.administrator.request<Health>('GET', '/api/v1/claude/health')).body;

    it('takes what is submitted and lets go on what runs, and nothing else, until it is resumed', async () => {
      const prompt = 'Goes on\n[[delay 1500]]\n[[text Done.]]';
      const running = await runner.client.submit({ prompt });
      await isAsked(prompt);
      expect(await turn('pause')).toMatchObject({ status: 200, body: { isPaused: true } });
      expect((await turn('pause')).body.isPaused).toBe(true);
      const waiting = [await submit(runner.client, 'First.'), await submit(runner.client, 'Second.')];
      expect(await runner.client.untilEnded(running.id)).toMatchObject({ status: 'completed' });

      expect(await health()).toMatchObject({
        status: 'degraded',
        parts: { queuePaused: true, queueDepth: 2, problems: ['The queue is paused.'] },
      });
      const unreadable = { older: '{"id":"older"}', broken: '{' };
      await runner.stores.redis.hset('claude-runner:workers', unreadable);
      expect(await queue()).toEqual({
        depth: { pending: 2, parked: 0, running: 0 },
        oldestAgeMs: expect.any(Number) as number,
        // The CLI of what has just ended may still be on its way out, and hold its slot.
        wakeUps: {
          waiting: expect.any(Number) as number,
          active: expect.any(Number) as number,
          delayed: 0,
        },
        isPaused: true,
        workers: [{ id: expect.any(String) as string, slots: 1, busySlots: expect.any(Number) as number }],
      });
      expect(await runner.stores.redis.hmget('claude-runner:workers', ...Object.keys(unreadable))).toEqual([
        null,
        null,
      ]);
      expect((await queue()).wakeUps!.waiting).toBeGreaterThanOrEqual(2);
      const socket = await RecordedSocket.connect(runner.client);
      const [{ id }] = waiting as [Process];
      await socket.askFor('claude:status', { processId: id, after: 0 });
      await socket.until(() => socket.all('claude:queued', id).length > 0);
      expect(socket.all('claude:queued', id)[0]).toEqual({
        processId: id,
        position: 1,
        estimatedStartAt: null,
      });
      // A second is enough for a process that is not held back.
      expect(await runner.client.find(id, { Prefer: 'wait=1' })).toMatchObject({ status: 'pending' });

      expect(await turn('resume')).toMatchObject({ status: 200, body: { isPaused: false } });
      expect(await startedOrder(waiting)).toEqual(['First.', 'Second.']);
      await socket.untilEnd(id);
      socket.close();
      expect(await health()).toMatchObject({ status: 'ok', parts: { queuePaused: false, problems: [] } });
    });

    it('cannot be while Redis is away, and is not afterwards; what is not known is null', async () => {
      proxy.cut();
      while ((await queue()).isPaused !== null);
      expect(await turn('pause')).toMatchObject({ status: 503, body: { code: 'unavailable' } });
      expect(await queue()).toMatchObject({ wakeUps: null, isPaused: null, workers: null });
      proxy.restore();
      while ((await queue()).isPaused === null);
      expect(await queue()).toMatchObject({ isPaused: false });
      const process = await submit(runner.client, 'Runs.');
      expect(await runner.client.untilEnded(process.id)).toMatchObject({ result: 'Runs.' });
    });
  });
});
