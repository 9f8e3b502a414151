import type { Process } from '../src/processes/processes.schemas.js';
import { isTerminal } from '../src/processes/process-events.schemas.js';
import type { Answer } from './support/api-client.js';
import { cliProcessesOf, untilNoCliOf } from './support/cli-processes.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { startTestServer, type TestServer } from './support/test-server.js';

const GONE_WITHIN_MS = 5_000;

let runner: TestServer;

beforeAll(async () => {
  runner = await startTestServer({ WORKER_CONCURRENCY: '2' });
});
beforeEach(() => untilNoCliOf(runner.dataDirectory));
afterAll(() => runner.stop());

const cancelByDelete = (id: string) => runner.client.cancel(id);
const cancelByPost = (id: string) =>
  runner.client.request<Process>('POST', `/api/v1/claude/processes/${id}/cancel`);

const logOf = async (id: string) => (await runner.client.events(id, '?limit=1000')).items;

const turnOf = (prompt: string) =>
  runner.messages.waitForRequest((request) => request.purpose === 'turn' && request.prompt === prompt);

/** A process that runs until it is cancelled: the model has been asked, and does not answer. */
async function startHanging(name: string): Promise<Process> {
  const prompt = `${name}\n[[hang]]`;
  const process = await runner.client.submit({ prompt });
  await turnOf(prompt);
  return process;
}

/**
 * Cancels, and expects what is due to a process that runs: a promise, its end, and no CLI within 5 s.
 * @returns the process as it ended
 */
async function expectCancelled(id: string, cancel: () => Promise<Answer<Process>>): Promise<Process> {
  expect(await cliProcessesOf(runner.dataDirectory)).not.toEqual([]);
  const began = performance.now();
  const { status, headers, body } = await cancel();
  expect(status).toBe(202);
  expect(headers.get('location')).toBe(`/api/v1/claude/processes/${id}`);
  expect(body).toMatchObject({ id, status: 'running', cancelRequestedAt: expect.any(String) as string });
  await untilNoCliOf(runner.dataDirectory);
  expect(performance.now() - began).toBeLessThan(GONE_WITHIN_MS);

  const process = await runner.client.untilEnded(id);
  expect(process).toMatchObject({
    status: 'cancelled',
    stopReason: 'interrupted',
    error: null,
    result: null,
    cancelRequestedAt: body.cancelRequestedAt,
  });
  expect((await logOf(id)).at(-1)).toMatchObject({ type: 'cancelled', process });
  return process;
}

describe('cancelling what runs', () => {
  it.each([
    ['DELETE', cancelByDelete],
    ['POST …/cancel', cancelByPost],
  ])('by %s ends it as cancelled, and its CLI within 5 s', async (name, cancel) => {
    const { id } = await startHanging(`Cancelled by ${name}`);
    const process = await expectCancelled(id, () => cancel(id));
    expect(process.startedAt).not.toBeNull();
  });

  it('ends it while the model speaks', async () => {
    const { id } = await runner.client.submit({ prompt: '[[deltas 2000 50]]' });
    await runner.client.waitForEvent(id, ({ type }) => type === 'text');
    const process = await expectCancelled(id, () => cancelByDelete(id));
    expect(process.usage?.inputTokens).toBeGreaterThan(0);
  });

  it('ends it while its CLI is still coming up', async () => {
    const process = await runner.client.submit({ prompt: 'Too early\n[[hang]]' });
    let pids: number[] = [];
    while (pids.length === 0) pids = await cliProcessesOf(runner.dataDirectory);
    const began = performance.now();
    expect((await cancelByDelete(process.id)).status).toBe(202);
    expect(await runner.client.untilEnded(process.id)).toMatchObject({ status: 'cancelled', result: null });
    await untilNoCliOf(runner.dataDirectory);
    expect(performance.now() - began).toBeLessThan(GONE_WITHIN_MS);
  });

  it('by claude:cancel ends it too, and answers with what was asked for', async () => {
    const { id } = await startHanging('Cancelled by a socket');
    const socket = await RecordedSocket.connect(runner.client);
    const began = performance.now();
    expect(await socket.ask('claude:cancel', { processId: id })).toMatchObject({
      ok: true,
      process: { id, status: 'running', cancelRequestedAt: expect.any(String) as string },
    });
    expect(await runner.client.untilEnded(id)).toMatchObject({ status: 'cancelled' });
    await untilNoCliOf(runner.dataDirectory);
    expect(performance.now() - began).toBeLessThan(GONE_WITHIN_MS);
    socket.close();
  });

  it('twice is one cancel: the first moment counts', async () => {
    const { id } = await startHanging('Cancelled twice');
    const [first, second] = await Promise.all([cancelByDelete(id), cancelByPost(id)]);
    const ended = await runner.client.untilEnded(id);
    expect([first.body.cancelRequestedAt, second.body.cancelRequestedAt]).toEqual([
      ended.cancelRequestedAt,
      ended.cancelRequestedAt,
    ]);
    expect((await logOf(id)).filter(isTerminal)).toHaveLength(1);
  });

  it('leaves what runs beside it alone', async () => {
    const { id } = await startHanging('Cancelled beside another');
    const neighbour = await runner.client.submit({ prompt: '[[delay 1500]]\n[[text Undisturbed.]]' });
    await runner.client.waitForEvent(neighbour.id, ({ type }) => type === 'started');
    await cancelByDelete(id);
    expect(await runner.client.untilEnded(id)).toMatchObject({ status: 'cancelled' });
    expect(await runner.client.untilEnded(neighbour.id)).toMatchObject({
      status: 'completed',
      result: 'Undisturbed.',
    });
  });
});

describe('cancelling what waits', () => {
  it.each([
    ['DELETE', cancelByDelete],
    ['POST …/cancel', cancelByPost],
  ])('by %s is over at once: it never runs', async (name, cancel) => {
    const running = [await startHanging(`First before ${name}`), await startHanging(`Second before ${name}`)];
    const prompt = `Waits for a slot before ${name}`;
    const waiting = await runner.client.submit({ prompt });
    const next = await runner.client.submit({ prompt: `After ${name}\n[[text Next.]]` });
    expect(await runner.client.find(next.id)).toMatchObject({ status: 'pending', queuePosition: 2 });

    const { status, headers, body } = await cancel(waiting.id);
    expect(status).toBe(200);
    expect(headers.get('process-status')).toBe('cancelled');
    expect(body).toMatchObject({ status: 'cancelled', startedAt: null, queuePosition: null, usage: null });
    expect(body.finishedAt).toBe(body.cancelRequestedAt);
    expect(await runner.client.find(next.id)).toMatchObject({ status: 'pending', queuePosition: 1 });

    for (const { id } of running) await cancelByDelete(id);
    expect(await runner.client.untilEnded(next.id)).toMatchObject({ status: 'completed', result: 'Next.' });
    expect(await runner.client.find(waiting.id)).toEqual(body);
    expect((await logOf(waiting.id)).map(({ type }) => type)).toEqual(['created', 'queued', 'cancelled']);
    expect(runner.messages.requests.filter((request) => request.prompt === prompt)).toEqual([]);
  });
});

describe('cancelling what has ended', () => {
  it.each([
    ['completed', '[[text Done.]]'],
    ['failed', '[[status 400]]'],
  ])('leaves it as it is: %s', async (status, prompt) => {
    const ended = (await runner.client.execute({ prompt })).body;
    expect(ended.status).toBe(status);
    for (const cancel of [cancelByDelete, cancelByPost]) {
      const answer = await cancel(ended.id);
      expect(answer.status).toBe(200);
      expect(answer.headers.get('process-status')).toBe(status);
      expect(answer.body).toEqual(ended);
    }
    expect(await logOf(ended.id)).toHaveLength(ended.lastSeq);
  });
});

describe('a cancel that races against completion', () => {
  // The sooner the event, the likelier the cancel wins: both outcomes are right, two at once never.
  it.each(['started', 'text', 'message', 'usage', 'usage', 'message'] as const)(
    'has one winner when it comes with the event %s',
    async (type) => {
      const { id } = await runner.client.submit({ prompt: '[[text One two three]]\n[[deltas 3 20]]' });
      await runner.client.waitForEvent(id, (event) => event.type === type);
      const cancels = await Promise.all([cancelByDelete(id), cancelByPost(id), cancelByDelete(id)]);
      for (const { status } of cancels) expect([200, 202]).toContain(status);

      const process = await runner.client.untilEnded(id);
      expect(['completed', 'cancelled']).toContain(process.status);
      expect(process.result).toBe(process.status === 'completed' ? 'One two three' : null);
      const log = await logOf(id);
      expect(log.filter(isTerminal)).toEqual([log.at(-1)]);
      expect(log.at(-1)).toMatchObject({ type: process.status, process });
      expect(log.map(({ seq }) => seq)).toEqual(log.map((_, index) => index + 1));
      expect(await runner.client.cancel(id)).toMatchObject({ status: 200, body: process });
    },
  );
});
