import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import type { Answer } from './support/api-client.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { type ServerPair, startServerPair } from './support/server-pair.js';
import { signInAsNewUser } from './support/users.js';

const PROCESSES = '/api/v1/claude/processes';

let runner: ServerPair['runner'];
let owner: ServerPair['owner'];
let elsewhere: ServerPair['elsewhere'];
let stop: ServerPair['stop'];

beforeAll(async () => {
  // What a nudge does not bring is not brought in time.
  ({ runner, owner, elsewhere, stop } = await startServerPair({
    WORKER_CONCURRENCY: '4',
    LEASE_HEARTBEAT_MS: '9000',
  }));
});
afterAll(() => stop());

type Told = Answer<{ id?: string; code?: string; retryAfterMs?: number | null }>;

const say = ({ id }: Process, text: string, client = elsewhere): Promise<Told> =>
  client.request('POST', `${PROCESSES}/${id}/messages`, { text });
const interrupt = ({ id }: Process, client = elsewhere): Promise<Told> =>
  client.request('POST', `${PROCESSES}/${id}/interrupt`);

const eventsOf = async ({ id }: Process) => (await owner.events(id, '?limit=1000')).items;
const typesOf = async (process: Process, ...types: ProcessEvent['type'][]) =>
  (await eventsOf(process)).map(({ type }) => type).filter((type) => types.includes(type));

/** A process that speaks. */
async function speaking(prompt: string): Promise<Process> {
  const process = await owner.submit({ prompt });
  await owner.waitForEvent(process.id, ({ type }) => type === 'text');
  return process;
}
const SPEAK_ON = '[[deltas 200 100]]';

describe('a process that runs', () => {
  it('answers a further message, in the same run, and ends with that', async () => {
    const process = await speaking('[[deltas 60 100]]\n[[usage in=10 out=1]]');
    const { status, headers, body } = await say(process, '[[text And that.]]\n[[usage in=100 out=2]]');
    expect([status, headers.get('Location'), body.id]).toEqual([202, process.links.self, process.id]);
    const ended = await owner.untilEnded(process.id);
    expect(ended).toMatchObject({
      status: 'completed',
      result: 'And that.',
      stopReason: 'end_turn',
      numTurns: 2,
      attempt: 1,
      usage: { inputTokens: 110, outputTokens: 3 },
    });
    const alone = await owner.execute({ prompt: '[[text One.]]\n[[usage in=10 out=1]]' });
    expect(ended.costUsd).toBeGreaterThan(alone.body.costUsd ?? Infinity);
    const types = ['message', 'user_message', 'completed'] as const;
    expect(await typesOf(process, ...types)).toEqual(['message', 'user_message', 'message', 'completed']);
    const spoken = await owner.request<{ items: { role: string }[] }>(
      'GET',
      `/api/v1/claude/sessions/${process.sessionId}/messages`,
    );
    expect(spoken.body.items.map(({ role }) => role)).toEqual(['user', 'assistant', 'user', 'assistant']);
  });

  it('interrupted, is completed with what it had said, and its session goes on', async () => {
    const process = await speaking(SPEAK_ON);
    const askedAt = Date.now();
    expect((await interrupt(process)).status).toBe(202);
    const ended = await owner.untilEnded(process.id);
    expect(ended).toMatchObject({
      status: 'completed',
      stopReason: 'interrupted',
      result: expect.stringMatching(/^word-1/) as string,
      cancelRequestedAt: null,
    });
    // Sooner than by the heartbeat.
    expect(Date.now() - askedAt).toBeLessThan(8_000);
    const next = await owner.execute({ prompt: '[[text On.]]', sessionId: process.sessionId });
    expect(next.body).toMatchObject({ status: 'completed', result: 'On.' });
  });

  it('is led elsewhere by a message and an interrupt', async () => {
    const process = await speaking(SPEAK_ON);
    await say(process, '[[text This instead.]]');
    await interrupt(process);
    expect(await owner.untilEnded(process.id)).toMatchObject({
      status: 'completed',
      stopReason: 'end_turn',
      result: 'This instead.',
    });
  });

  it('is steered over a socket as well', async () => {
    const socket = await RecordedSocket.connect(elsewhere);
    const { id } = await socket.askFor('claude:execute', { prompt: SPEAK_ON });
    await socket.until(() => socket.log(id).some(({ type }) => type === 'text'));
    await socket.askFor('claude:message', { processId: id, text: '[[deltas 200 100]]\n[[text a b]]' });
    await socket.askFor('claude:interrupt', { processId: id });
    await socket.until(() => socket.log(id).some(({ type }) => type === 'user_message'));
    await socket.askFor('claude:interrupt', { processId: id });
    await socket.untilEnd(id);
    expect(socket.all('claude:complete', id)).toMatchObject([{ process: { status: 'completed' } }]);
    const refused = await socket.ask('claude:interrupt', { processId: id });
    expect(refused).toMatchObject({ ok: false, error: { code: 'process_ended', status: 409 } });
    socket.close();
  });

  it('is steered in the same way where the API answers it', async () => {
    const onwards = async (request: object) => {
      const process = await owner.submit({ engine: 'api', ...request });
      await owner.waitForEvent(process.id, ({ type }) => type === 'text');
      return process;
    };
    const process = await onwards({ prompt: '[[deltas 60 100]]\n[[usage in=10 out=1]]' });
    expect((await say(process, '[[text And that.]]\n[[usage in=100 out=2]]')).status).toBe(202);
    expect(await owner.untilEnded(process.id)).toMatchObject({
      ...{ status: 'completed', engine: 'api', result: 'And that.', numTurns: 2, attempt: 1 },
      usage: { inputTokens: 110, outputTokens: 3 },
    });
    const types = ['message', 'user_message', 'completed'] as const;
    expect(await typesOf(process, ...types)).toEqual(['message', 'user_message', 'message', 'completed']);

    const next = await onwards({ prompt: SPEAK_ON, sessionId: process.sessionId });
    const socket = await RecordedSocket.connect(elsewhere);
    await socket.askFor('claude:message', { processId: next.id, text: '[[text This instead.]]' });
    await socket.askFor('claude:interrupt', { processId: next.id });
    socket.close();
    expect(await owner.untilEnded(next.id)).toMatchObject({
      ...{ status: 'completed', engine: 'api', stopReason: 'end_turn', result: 'This instead.' },
    });
    const broken = await onwards({ prompt: SPEAK_ON });
    await interrupt(broken);
    expect(await owner.untilEnded(broken.id)).toMatchObject({
      ...{ status: 'completed', engine: 'api', stopReason: 'interrupted' },
      result: expect.stringMatching(/^word-1/) as string,
    });
  });

  it('takes so many messages that it has not read, and no more', async () => {
    const process = await owner.submit({ prompt: '[[hang]]' });
    await owner.waitForEvent(process.id, ({ type }) => type === 'started');
    const answers = [];
    for (let n = 0; n < 17; n += 1) answers.push(await say(process, `Number ${n}`));
    expect(answers.map(({ status }) => status)).toEqual([...Array<number>(16).fill(202), 429]);
    expect(answers.at(-1)).toMatchObject({ body: { code: 'too_many_messages', retryAfterMs: 5_000 } });
    expect(answers.at(-1)?.headers.get('Retry-After')).toBe('5');
    await owner.cancel(process.id);
    expect(await owner.untilEnded(process.id)).toMatchObject({ status: 'cancelled' });
    expect(await typesOf(process, 'user_message')).toEqual([]);
  });

  it('answers every message that it was accepted for, however close to its end, and refuses the others', async () => {
    const closeToItsEnd = async (): Promise<void> => {
      const process = await owner.submit({ prompt: '[[text Answer -1]]' });
      await owner.waitForEvent(process.id, ({ type }) => type === 'message');
      const accepted: string[] = [];
      const refused: unknown[] = [];
      for (let n = 0; n < 4; n += 1) {
        const text = `[[text Answer ${n}]]`;
        const { status, body } = await say(process, text);
        if (status === 202) accepted.push(text);
        else refused.push(body.code);
      }
      const ended = await owner.untilEnded(process.id);
      const read = (await eventsOf(process)).flatMap((event) =>
        event.type === 'user_message' ? [event.text] : [],
      );
      expect(read).toEqual(accepted);
      expect(new Set(['process_ended', ...refused])).toEqual(new Set(['process_ended']));
      expect(ended).toMatchObject({
        status: 'completed',
        attempt: 1,
        result: `Answer ${accepted.length - 1}`,
      });
    };
    await Promise.all([closeToItsEnd(), closeToItsEnd(), closeToItsEnd(), closeToItsEnd()]);
  });

  it('listens to its owner alone', async () => {
    const process = await speaking(SPEAK_ON);
    const other = await signInAsNewUser(runner);
    for (const client of [other, runner.administrator]) {
      const refused = [await say(process, 'Stop', client), await interrupt(process, client)];
      expect(refused.map(({ status, body }) => [status, body.code])).toEqual([
        [404, 'process_not_found'],
        [404, 'process_not_found'],
      ]);
    }
    await interrupt(process);
    await owner.untilEnded(process.id);
    expect((await say(process, 'More')).body.code).toBe('process_ended');
    expect(await typesOf(process, 'user_message')).toEqual([]);
  });
});
