import { randomUUID } from 'node:crypto';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import type { Answer } from './support/api-client.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { type ServerPair, startServerPair } from './support/server-pair.js';
import { signInAsNewUser, userIdOf } from './support/users.js';

type Asked = Extract<ProcessEvent, { type: 'permission_requested' }>;

const PROCESSES = '/api/v1/claude/processes';
/** Longer than any answer of these tests takes. */
const PERMISSION_TIMEOUT_MS = 25_000;

let runner: ServerPair['runner'];
let owner: ServerPair['owner'];
let elsewhere: ServerPair['elsewhere'];
let stop: ServerPair['stop'];

beforeAll(async () => {
  ({ runner, owner, elsewhere, stop } = await startServerPair({
    PERMISSION_TIMEOUT_MS: String(PERMISSION_TIMEOUT_MS),
    WORKER_CONCURRENCY: '4',
  }));
});
afterAll(() => stop());

const write = (name: string, content = 'written') =>
  `[[tool Write ${JSON.stringify({ file_path: name, content })}]]`;

const isQuestion = (event: ProcessEvent): event is Asked => event.type === 'permission_requested';

/** A process that has asked whether it may write a file. */
async function asked(options: { prompt?: string; timeoutMs?: number } = {}) {
  const process = await owner.submit({
    prompt: write('a.txt'),
    permissionMode: 'ask',
    tools: ['Write'],
    ...options,
  });
  return { process, question: (await elsewhere.waitForEvent(process.id, isQuestion)) as Asked };
}

const answer = (
  { processId, permissionId }: { processId: string; permissionId: string },
  body: object,
  client = elsewhere,
): Promise<Answer<{ id?: string; code?: string }>> =>
  client.request('POST', `${PROCESSES}/${processId}/permissions/${permissionId}`, body);

const eventsOf = async (id: string) => (await owner.events(id, '?limit=1000')).items;
const resolutionsOf = async (id: string) =>
  (await eventsOf(id)).filter((event) => event.type === 'permission_resolved');

const wasWritten = ({ sessionId }: Process, name = 'a.txt') =>
  access(join(runner.dataDirectory, 'engine', 'workspaces', sessionId, name)).then(
    () => true,
    () => false,
  );

describe('a process that asks', () => {
  it('goes on with what it was allowed, at whichever server', async () => {
    const { process, question } = await asked();
    expect(question).toMatchObject({ tool: 'Write', input: { content: 'written' } });
    expect(await wasWritten(process)).toBe(false);
    const { status, headers, body } = await answer(question, { decision: 'allow' });
    expect([status, headers.get('Location'), body.id]).toEqual([202, process.links.self, process.id]);
    const ended = await owner.untilEnded(process.id);
    expect(ended).toMatchObject({ status: 'completed', permissionDenials: [] });
    expect(await wasWritten(process)).toBe(true);
    const types = (await eventsOf(process.id)).map(({ type }) => type);
    const expected = ['tool_use', 'permission_requested', 'permission_resolved', 'tool_result'];
    expect(types.filter((type) => expected.includes(type))).toEqual(expected);
    expect(await resolutionsOf(process.id)).toMatchObject([
      { permissionId: question.permissionId, decision: 'allow', by: userIdOf(owner), reason: 'answered' },
    ]);
  });

  it('is told why it may not, and goes on without', async () => {
    const { process, question } = await asked();
    await answer(question, { decision: 'deny', message: 'Not in this folder.' });
    expect(await owner.untilEnded(process.id)).toMatchObject({
      status: 'completed',
      result: 'The tool failed: Not in this folder.',
      permissionDenials: [{ toolUseId: question.toolUseId, name: 'Write' }],
    });
    expect(await wasWritten(process)).toBe(false);
    expect(await resolutionsOf(process.id)).toMatchObject([
      { decision: 'deny', message: 'Not in this folder.' },
    ]);
  });

  it('does what it was allowed, where that is something else', async () => {
    const { process, question } = await asked();
    const input = question.input as { file_path: string };
    const updatedInput = { ...input, file_path: input.file_path.replace('a.txt', 'b.txt') };
    await answer(question, { decision: 'allow', updatedInput });
    await owner.untilEnded(process.id);
    expect([await wasWritten(process), await wasWritten(process, 'b.txt')]).toEqual([false, true]);
    expect(await resolutionsOf(process.id)).toMatchObject([{ updatedInput }]);
  });

  it('over a socket is told of as claude:permission, and answered there', async () => {
    const socket = await RecordedSocket.connect(elsewhere);
    const process = await socket.askFor('claude:execute', {
      prompt: write('a.txt'),
      permissionMode: 'ask',
      tools: ['Write'],
    });
    await socket.until((heard) => heard.some(({ name }) => name === 'claude:permission'));
    const question = socket.log(process.id).find(isQuestion)!;
    expect(socket.all('claude:permission', process.id)).toEqual([question]);
    const { permissionId } = question;
    const message = { processId: process.id, permissionId, decision: 'allow' };
    expect(await socket.ask('claude:permission:respond', message)).toMatchObject({
      ok: true,
      process: { id: process.id },
    });
    await socket.untilEnd(process.id);
    expect(await wasWritten(process)).toBe(true);
    const late = { ...message, decision: 'deny' };
    expect(await socket.ask('claude:permission:respond', late)).toMatchObject({
      ok: false,
      error: { code: 'permission_already_answered' },
    });
    socket.close();
  });

  it('is refused when nobody answers in time, its own time not counted', async () => {
    // Its own time would be over long before.
    const { process, question } = await asked({ timeoutMs: 15_000 });
    expect(Date.parse(question.expiresAt) - Date.parse(question.createdAt)).toBeGreaterThan(
      PERMISSION_TIMEOUT_MS - 5_000,
    );
    const ended = await owner.untilEnded(process.id);
    expect(ended).toMatchObject({
      status: 'completed',
      result: expect.stringContaining('Nobody answered') as string,
    });
    expect(await resolutionsOf(process.id)).toMatchObject([
      { decision: 'deny', by: null, reason: 'expired' },
    ]);
    const { status, body } = await answer(question, { decision: 'allow' });
    expect([status, body.code]).toEqual([409, 'permission_expired']);
  });

  it('can be cancelled while it waits: its question is withdrawn', async () => {
    const { process, question } = await asked();
    await owner.cancel(process.id);
    expect(await owner.untilEnded(process.id)).toMatchObject({ status: 'cancelled' });
    expect(await resolutionsOf(process.id)).toMatchObject([
      { decision: 'deny', by: null, reason: 'withdrawn' },
    ]);
    const { status, body } = await answer(question, { decision: 'allow' });
    expect([status, body.code]).toEqual([409, 'permission_withdrawn']);
    expect(await wasWritten(process)).toBe(false);
  });

  it('asks for each call by itself', async () => {
    const prompt = `${write('a.txt')}\n${write('b.txt')}`;
    const { process, question } = await asked({ prompt });
    await answer(question, { decision: 'deny' });
    const next = (await elsewhere.waitForEvent(
      process.id,
      (event) => isQuestion(event) && event.permissionId !== question.permissionId,
    )) as Asked;
    await answer(next, { decision: 'allow' });
    await owner.untilEnded(process.id);
    expect([await wasWritten(process), await wasWritten(process, 'b.txt')]).toEqual([false, true]);
  });
});

describe('an answer', () => {
  it('counts once: the same again changes nothing, another is refused', async () => {
    const { process, question } = await asked();
    expect((await answer(question, { decision: 'allow' })).status).toBe(202);
    await owner.untilEnded(process.id);
    expect((await answer(question, { decision: 'allow' })).status).toBe(200);
    const { status, body } = await answer(question, { decision: 'deny' });
    expect([status, body.code]).toEqual([409, 'permission_already_answered']);
    expect(await resolutionsOf(process.id)).toHaveLength(1);
  });

  it('is that of the owner alone, to a question of that process', async () => {
    const { process, question } = await asked();
    const other = await signInAsNewUser(runner);
    const another = await owner.submit({ prompt: '[[hang]]' });
    await owner.waitForEvent(another.id, ({ type }) => type === 'started');
    const refusals = [
      await answer(question, { decision: 'allow' }, other),
      await answer(question, { decision: 'allow' }, runner.administrator),
      await answer({ ...question, processId: randomUUID() }, { decision: 'allow' }),
      await answer({ ...question, permissionId: randomUUID() }, { decision: 'allow' }),
      await answer({ ...question, processId: another.id }, { decision: 'allow' }),
    ];
    expect(refusals.map(({ status, body }) => [status, body.code])).toEqual([
      [404, 'process_not_found'],
      [404, 'process_not_found'],
      [404, 'process_not_found'],
      [404, 'permission_not_found'],
      [404, 'permission_not_found'],
    ]);
    expect(await resolutionsOf(process.id)).toEqual([]);
    await Promise.all([owner.cancel(process.id), owner.cancel(another.id)]);
    await owner.untilEnded(another.id);
  });

  it('to what has ended and had not asked says that it has', async () => {
    const { body } = await owner.execute({ prompt: '[[text Done.]]' });
    const refused = await answer({ processId: body.id, permissionId: randomUUID() }, { decision: 'allow' });
    expect([refused.status, refused.body.code]).toEqual([409, 'process_ended']);
  });
});
