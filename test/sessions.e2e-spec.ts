import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../libs/messages-api/index.js';
import type { Problem } from '../src/platform/errors/errors.schemas.js';
import type { Process, ProcessPage } from '../src/processes/processes.schemas.js';
import type { Session, SessionMessagePage, SessionPage } from '../src/sessions/sessions.schemas.js';
import { type Answer, ApiClient } from './support/api-client.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { killAll, type SpawnedServer, spawnServer } from './support/spawned-server.js';
import { createStores, type TestStores } from './support/stores.js';
import { startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser } from './support/users.js';

const SESSIONS = '/api/v1/claude/sessions';
const UNKNOWN = randomUUID();

/** What a user does with sessions. */
class Conversations {
  constructor(readonly client: ApiClient) {}

  make(body: object = {}): Promise<Answer<Session>> {
    return this.client.request<Session>('POST', SESSIONS, body);
  }

  find(id: string): Promise<Answer<Session & Problem>> {
    return this.client.request('GET', `${SESSIONS}/${id}`);
  }

  fork(id: string, body: object = {}): Promise<Answer<Session & Problem>> {
    return this.client.request('POST', `${SESSIONS}/${id}/fork`, body);
  }

  remove(id: string): Promise<Answer<Problem>> {
    return this.client.request('DELETE', `${SESSIONS}/${id}`);
  }

  async messages(id: string, query = ''): Promise<SessionMessagePage> {
    return (await this.client.request<SessionMessagePage>('GET', `${SESSIONS}/${id}/messages${query}`)).body;
  }

  /** What was said, in a word each. */
  async said(id: string): Promise<string[]> {
    const { items } = await this.messages(id);
    return items.flatMap(({ content }) =>
      content.map((block) => ('text' in block ? block.text : block.type)),
    );
  }

  /** Says something, and waits for what becomes of it. */
  async say(prompt: string, request: object = {}): Promise<Process> {
    return this.client.untilEnded((await this.client.submit({ prompt, ...request })).id);
  }
}

/** What the model was shown when it was asked last. */
const shown = (messages: MessagesApi) =>
  JSON.stringify(
    (messages.requests.findLast(({ purpose }) => purpose === 'turn')?.body as { messages: unknown }).messages,
  );

describe('a session', () => {
  let runner: TestServer;
  let mine: Conversations;
  beforeAll(async () => {
    // No sweep makes up for a wake-up that is not sent.
    runner = await startTestServer({ RECONCILER_INTERVAL_MS: '3600000', WORKER_CONCURRENCY: '3' });
    mine = new Conversations(runner.client);
  });
  afterAll(() => runner.stop());

  const isAsked = (prompt: string) => runner.messages.waitForRequest((request) => request.prompt === prompt);

  it('is continued by a process that names it, and counts its turns', async () => {
    const first = await mine.say('Remember 42\n[[text I do]]\n[[usage in=1000 out=10]]');
    const { sessionId } = first;
    const second = await mine.say('What was it?\n[[text 42]]\n[[usage in=1000 out=10]]', { sessionId });
    expect(second).toMatchObject({ status: 'completed', result: '42', sessionId });
    expect(shown(runner.messages)).toMatch(/Remember 42.*I do.*What was it/s);
    expect(second.usage).toEqual(first.usage);
    expect(second.costUsd).toBe(first.costUsd);
    const { body } = await mine.find(sessionId);
    expect(body).toMatchObject({
      id: sessionId,
      head: 2,
      processCount: 2,
      isBusy: false,
      forkedFromId: null,
    });
    expect(body.usage).toMatchObject({ inputTokens: 2000, outputTokens: 20 });
    expect(body.costUsd).toBeCloseTo(2 * (first.costUsd ?? 0), 10);
  });

  it('is made without a process, too', async () => {
    const { status, body } = await mine.make({ title: '  A plan ' });
    expect({ status, body }).toMatchObject({
      status: 201,
      body: { title: 'A plan', head: 0, processCount: 0, usage: null, costUsd: null, transcriptGaps: 0 },
    });
    expect(await mine.say('[[text Yes]]', { sessionId: body.id })).toMatchObject({ sessionId: body.id });
    expect(await mine.say('[[text Again]]', { sessionId: body.id })).toMatchObject({ status: 'completed' });
    expect(await mine.said(body.id)).toEqual(['[[text Yes]]', 'Yes', '[[text Again]]', 'Again']);
  });

  it('gets another title, or none', async () => {
    const { id } = (await mine.make()).body;
    const rename = async (title: string | null) =>
      (await runner.client.request<Session>('PATCH', `${SESSIONS}/${id}`, { title })).body.title;
    expect(await rename('One')).toBe('One');
    expect(await rename(null)).toBeNull();
    expect((await mine.find(id)).body.title).toBeNull();
  });

  it('runs its processes one after the other, in the order of their submission whatever their priority', async () => {
    const { id: sessionId } = (await mine.make()).body;
    const submitted: Process[] = [];
    for (const [index, priority] of [0, 9, 5].entries())
      submitted.push(
        await runner.client.submit({
          prompt: `Turn ${index}\n[[delay 200]]\n[[text ${index}]]`,
          sessionId,
          priority,
        }),
      );
    const ended = await Promise.all(submitted.map(({ id }) => runner.client.untilEnded(id)));
    expect(ended.map(({ result }) => result)).toEqual(['0', '1', '2']);
    for (const [index, { startedAt }] of ended.slice(1).entries())
      expect(Date.parse(startedAt!)).toBeGreaterThanOrEqual(Date.parse(ended[index]!.finishedAt!));
    expect((await mine.said(sessionId)).filter((text) => /^\d$/.test(text))).toEqual(['0', '1', '2']);
  });

  it('keeps its next process waiting while one that failed is to run again', async () => {
    const { id: sessionId } = (await mine.make()).body;
    const retry = { maxAttempts: 2, on: ['upstream_overloaded'] };
    const failing = 'First\n[[status 529 times=2]]\n[[text One]]';
    const first = await runner.client.submit({ prompt: failing, sessionId, retry });
    const second = await runner.client.submit({ prompt: 'Second\n[[text Two]]', sessionId, priority: 9 });
    expect(await runner.client.untilEnded(second.id)).toMatchObject({ status: 'completed' });
    expect(await runner.client.find(first.id)).toMatchObject({ status: 'completed', attempt: 2 });
    expect(await mine.said(sessionId)).toEqual([failing, 'One', 'Second\n[[text Two]]', 'Two']);
  });

  it('goes on without what was cancelled while it waited', async () => {
    const { id: sessionId } = (await mine.make()).body;
    const first = await runner.client.submit({ prompt: 'Hold\n[[hang]]', sessionId });
    const [second, third] = [
      await runner.client.submit({ prompt: 'Skip me', sessionId }),
      await runner.client.submit({ prompt: '[[text Here]]', sessionId }),
    ];
    await isAsked('Hold\n[[hang]]');
    await runner.client.cancel(second.id);
    await runner.client.cancel(first.id);
    expect(await runner.client.untilEnded(third.id)).toMatchObject({ status: 'completed', result: 'Here' });
    expect(shown(runner.messages)).not.toContain('Skip me');
    expect((await mine.find(sessionId)).body.head).toBe(2);
  });

  it('goes on after a turn that failed, which the model knows of', async () => {
    const { sessionId } = await mine.say('Break\n[[status 400]]');
    expect(await mine.say('Mend\n[[text Mended]]', { sessionId })).toMatchObject({ result: 'Mended' });
    expect(shown(runner.messages)).toMatch(/Break.*Mend/s);
  });

  it('of which something could not be kept says so, and its process ends all the same', async () => {
    const { id: sessionId } = (await mine.make()).body;
    await runner.stores.query('ALTER TABLE session_entries ADD CONSTRAINT nothing CHECK (false) NOT VALID');
    const process = await mine.say('[[text Told]]', { sessionId });
    await runner.stores.query('ALTER TABLE session_entries DROP CONSTRAINT nothing');
    expect(process).toMatchObject({ status: 'completed', result: 'Told' });
    expect((await mine.find(sessionId)).body.transcriptGaps).toBeGreaterThan(0);
    expect(await mine.say('[[text Kept]]', { sessionId })).toMatchObject({ result: 'Kept' });
    expect(await mine.said(sessionId)).toEqual(['[[text Kept]]', 'Kept']);
  });

  it('lets each process have its own system prompt', async () => {
    const { sessionId } = await mine.say('[[text One]]', { systemPrompt: 'You are a parrot.' });
    await mine.say('[[text Two]]', { sessionId, systemPrompt: 'You are a cat.' });
    const { system } = runner.messages.requests.at(-1)?.body as { system: unknown };
    expect(JSON.stringify(system)).toContain('You are a cat.');
    expect(JSON.stringify(system)).not.toContain('parrot');
  });

  it('tells what was said in it, page by page, and in which process', async () => {
    const first = await mine.say(
      'Look\n[[think Let me see]]\n[[tool Glob {"pattern":"*.txt"}]]\n[[text None]]',
    );
    const { sessionId } = first;
    const second = await mine.say('Bye\n[[text Bye]]', { sessionId });
    const whole = await mine.messages(sessionId);
    expect(
      whole.items.map(({ role, processId, content: [block] }) => [role, processId, block?.type]),
    ).toEqual([
      ['user', first.id, 'text'],
      ['assistant', first.id, 'thinking'],
      ['assistant', first.id, 'tool_use'],
      ['user', first.id, 'tool_result'],
      ['assistant', first.id, 'text'],
      ['user', second.id, 'text'],
      ['assistant', second.id, 'text'],
    ]);
    expect(whole.items[0]?.content).toEqual([{ type: 'text', text: first.prompt }]);
    const pages: SessionMessagePage['items'] = [];
    for (let after: number | null = 0; after !== null;) {
      const page = await mine.messages(sessionId, `?limit=2&after=${after}`);
      expect(page.items.length).toBeLessThanOrEqual(2);
      pages.push(...page.items);
      after = page.nextCursor;
    }
    expect(pages).toEqual(whole.items);
  });

  it('is among the sessions of its owner, newest first, and among nobody else’s', async () => {
    const other = new Conversations(await signInAsNewUser(runner));
    const made: string[] = [];
    for (let count = 0; count < 3; count += 1) made.unshift((await other.make()).body.id);
    const list = async (query: string) =>
      (await other.client.request<SessionPage>('GET', `${SESSIONS}${query}`)).body;
    const first = await list('?limit=2');
    const second = await list(`?limit=2&cursor=${first.nextCursor}`);
    expect([...first.items, ...second.items].map(({ id }) => id)).toEqual(made);
    expect(second.nextCursor).toBeNull();
    const { sessionId } = await mine.say('[[text Mine]]');
    const processes = await runner.client.request<ProcessPage>(
      'GET',
      `/api/v1/claude/processes?sessionId=${sessionId}`,
    );
    expect(processes.body.items.map((process) => process.sessionId)).toEqual([sessionId]);
  });

  it('is left alone by who names one that is not theirs, and nothing is made', async () => {
    const { sessionId } = await mine.say('[[text Mine]]');
    const other = new Conversations(await signInAsNewUser(runner));
    const count = () =>
      runner.stores.query('SELECT count(*) FROM processes UNION ALL SELECT count(*) FROM sessions');
    const before = await count();
    for (const id of [UNKNOWN, sessionId])
      for (const forkSession of [false, true]) {
        const request = { prompt: 'Hello', sessionId: id, forkSession };
        const refused = await other.client.request('POST', '/api/v1/claude/execute/async', request);
        expect(refused).toMatchObject({ status: 404, body: { code: 'session_not_found' } });
        const socket = await RecordedSocket.connect(other.client);
        expect(await socket.ask('claude:execute', request)).toMatchObject({
          ok: false,
          error: { code: 'session_not_found' },
        });
        socket.close();
      }
    expect(await other.find(sessionId)).toMatchObject({ status: 404, body: { code: 'session_not_found' } });
    expect(await count()).toEqual(before);
  });

  describe('that is forked', () => {
    it('stays as it is, and the fork goes on from there, with files of its own', async () => {
      const write = (text: string) => `[[tool Write {"file_path":"a.txt","content":"${text}"}]]`;
      const { sessionId } = await mine.say(`Begin\n${write('origin')}\n[[text One]]`, {
        permissionMode: 'acceptEdits',
      });
      const forked = await mine.say('Branch\n[[tool Read {"file_path":"a.txt"}]]', {
        sessionId,
        forkSession: true,
      });
      expect(forked.sessionId).not.toBe(sessionId);
      expect(forked.result).toContain('origin');
      expect(shown(runner.messages)).toMatch(/Begin.*One.*Branch/s);
      await mine.say(`${write('fork')}\n[[text Two]]`, {
        sessionId: forked.sessionId,
        permissionMode: 'acceptEdits',
      });
      expect((await mine.find(forked.sessionId)).body).toMatchObject({ forkedFromId: sessionId, head: 3 });
      await mine.say('Trunk\n[[text Three]]', { sessionId });
      expect(shown(runner.messages)).not.toContain('Branch');
      const fileOf = (id: string) =>
        readFile(join(runner.dataDirectory, 'engine/workspaces', id, 'a.txt'), 'utf8');
      expect([await fileOf(sessionId), await fileOf(forked.sessionId)]).toEqual(['origin', 'fork']);
    });

    it('costs each what was said there', async () => {
      const { sessionId, costUsd } = await mine.say('[[text One]]\n[[usage in=1000 out=10]]');
      const request = { sessionId, forkSession: true };
      const forked = await mine.say('[[text Two]]\n[[usage in=1000 out=10]]', request);
      expect(forked).toMatchObject({ costUsd, usage: { inputTokens: 1000, outputTokens: 10 } });
      expect((await mine.find(forked.sessionId)).body.costUsd).toBe(costUsd);
      expect((await mine.find(sessionId)).body.costUsd).toBe(costUsd);
    });

    it('at an earlier turn knows nothing of the later ones', async () => {
      const { sessionId } = await mine.say('First\n[[text One]]');
      await mine.say('Second\n[[text Two]]', { sessionId });
      const { status, body: fork } = await mine.fork(sessionId, { head: 1, title: 'Otherwise' });
      expect({ status, fork }).toMatchObject({
        status: 201,
        fork: { title: 'Otherwise', head: 1, processCount: 0 },
      });
      expect(await mine.said(fork.id)).toEqual(['First\n[[text One]]', 'One']);
      await mine.say('Third\n[[text Three]]', { sessionId: fork.id });
      expect(shown(runner.messages)).toMatch(/First.*Third/s);
      expect(shown(runner.messages)).not.toContain('Second');
      const empty = (await mine.fork(sessionId, { head: 0 })).body;
      expect(await mine.say('Anew\n[[text Four]]', { sessionId: empty.id })).toMatchObject({
        result: 'Four',
      });
      expect(shown(runner.messages)).not.toContain('First');
    });

    it('at a turn that it has not come to is not', async () => {
      const { sessionId } = await mine.say('[[text One]]');
      expect(await mine.fork(sessionId, { head: 2 })).toMatchObject({
        status: 400,
        body: { code: 'validation_failed', errors: [{ pointer: '/head' }] },
      });
    });

    it('while one of its processes runs is not', async () => {
      const prompt = 'Run\n[[hang]]';
      const { id, sessionId } = await runner.client.submit({ prompt });
      await isAsked(prompt);
      expect(await mine.fork(sessionId)).toMatchObject({ status: 409, body: { code: 'session_busy' } });
      const request = { prompt: 'Fork', sessionId, forkSession: true };
      expect(await runner.client.request('POST', '/api/v1/claude/execute/async', request)).toMatchObject({
        status: 409,
        body: { code: 'session_busy', retryable: true },
      });
      await runner.client.cancel(id);
      await runner.client.untilEnded(id);
      expect(await mine.fork(sessionId)).toMatchObject({ status: 201 });
    });
  });

  describe('that is deleted', () => {
    const entriesOf = (id: string) =>
      runner.stores.query('SELECT 1 FROM session_entries WHERE session_id = $1', [id]);
    const workspaces = () => readdir(join(runner.dataDirectory, 'engine/workspaces'));

    it('is gone with what was said in it and its files; its processes and forks stay', async () => {
      const { id, sessionId } = await mine.say('Secret\n[[text Kept]]');
      const fork = (await mine.fork(sessionId)).body;
      expect(await workspaces()).toContain(sessionId);
      expect(await mine.remove(sessionId)).toMatchObject({ status: 204 });
      for (const [method, path, body] of [
        ['GET', ''],
        ['GET', '/messages'],
        ['PATCH', '', { title: 'x' }],
        ['POST', '/fork', {}],
        ['DELETE', ''],
      ] as const)
        expect(await runner.client.request(method, `${SESSIONS}/${sessionId}${path}`, body)).toMatchObject({
          status: 404,
          body: { code: 'session_not_found' },
        });
      const again = { prompt: 'Again', sessionId };
      expect(await runner.client.request('POST', '/api/v1/claude/execute', again)).toMatchObject({
        status: 404,
      });
      const listed = await runner.client.request<SessionPage>('GET', `${SESSIONS}?limit=100`);
      expect(listed.body.items.map((session) => session.id)).not.toContain(sessionId);
      expect(await entriesOf(sessionId)).toEqual([]);
      expect(await workspaces()).not.toContain(sessionId);
      expect(await runner.client.find(id)).toMatchObject({ status: 'completed', result: 'Kept', sessionId });
      expect(await mine.said(fork.id)).toEqual(['Secret\n[[text Kept]]', 'Kept']);
    });

    it('must not be busy: neither run nor wait', async () => {
      const prompt = 'Keep\n[[hang]]';
      const { id, sessionId } = await runner.client.submit({ prompt });
      const waiting = await runner.client.submit({ prompt: '[[text Here]]', sessionId });
      await isAsked(prompt);
      const refused = { status: 409, body: { code: 'session_busy' } };
      expect(await mine.remove(sessionId)).toMatchObject(refused);
      await runner.client.cancel(waiting.id);
      expect(await mine.remove(sessionId)).toMatchObject(refused);
      expect((await mine.find(sessionId)).body.isBusy).toBe(true);
      await runner.client.cancel(id);
      await runner.client.untilEnded(id);
      expect(await mine.remove(sessionId)).toMatchObject({ status: 204 });
    });

    it('while processes are submitted to it either takes them or is gone', async () => {
      const races = Array.from({ length: 12 }, async () => {
        const { id: sessionId } = (await mine.make()).body;
        const submit = { prompt: '[[text Ran]]', sessionId };
        const [submitted, removed] = await Promise.all([
          runner.client.request<Process>('POST', '/api/v1/claude/execute/async', submit),
          mine.remove(sessionId),
        ]);
        const ended = submitted.status === 202 ? await runner.client.untilEnded(submitted.body.id) : null;
        return `${submitted.status} ${ended?.result ?? 'none'} ${removed.status}`;
      });
      for (const outcome of await Promise.all(races))
        expect(['202 Ran 409', '404 none 204', '202 Ran 204']).toContain(outcome);
    });

    it('loses what was said with the content of the process that alone was in it', async () => {
      const [alone, first] = [await mine.say('Alone\n[[text A]]'), await mine.say('Both\n[[text B]]')];
      await mine.say('More\n[[text C]]', { sessionId: first.sessionId });
      for (const { id } of [alone, first])
        await runner.client.request('DELETE', `/api/v1/claude/processes/${id}/content`);
      expect(await mine.said(alone.sessionId)).toEqual([]);
      expect(await mine.said(first.sessionId)).toContain('B');
    });
  });
});

describe('a session among several workers', () => {
  let stores: TestStores;
  let messages: MessagesApi;
  let mine: Conversations;
  let servers: SpawnedServer[];

  const spawn = async (environment: NodeJS.ProcessEnv = {}) => {
    const server = await spawnServer({
      DATABASE_URL: stores.databaseUrl,
      REDIS_URL: stores.redisUrl,
      ANTHROPIC_API_KEY: 'sk-ant-test',
      ANTHROPIC_BASE_URL: messages.url,
      LEASE_TTL_MS: '8000',
      LEASE_HEARTBEAT_MS: '500',
      LEASE_FENCE_MS: '7000',
      RECONCILER_INTERVAL_MS: '200',
      ...environment,
    });
    servers.push(server);
    return server;
  };
  const spawnWorker = () => spawn({ ROLE: 'worker' });

  beforeEach(async () => {
    servers = [];
    stores = await createStores();
    messages = await startMessagesApi();
    mine = new Conversations((await spawn({ ROLE: 'api' })).client());
  });
  afterEach(async () => {
    await killAll(servers);
    await messages.close();
    await stores.drop();
  });

  it('goes on at another one, which has nothing of it', async () => {
    const first = await spawnWorker();
    const { sessionId } = await mine.say('Remember 42\n[[text I do]]');
    await first.terminate();
    await spawnWorker();
    expect(await mine.say('What was it?\n[[text 42]]', { sessionId })).toMatchObject({ result: '42' });
    expect(shown(messages)).toMatch(/Remember 42.*I do.*What was it/s);
    expect((await mine.find(sessionId)).body.head).toBe(2);
  });

  it('goes on after all servers were restarted', async () => {
    const worker = await spawnWorker();
    const { sessionId } = await mine.say('Remember 42\n[[text I do]]');
    for (const server of servers) await server.terminate();
    const next = await spawn({ DATA_DIR: worker.dataDirectory });
    mine = new Conversations(new ApiClient(next.url, mine.client.token));
    expect(await mine.say('What was it?\n[[text 42]]', { sessionId })).toMatchObject({ result: '42' });
    expect(shown(messages)).toMatch(/Remember 42.*I do.*What was it/s);
  });

  it('goes on after a kill -9 in the middle of a turn, with what waits in it', async () => {
    const worker = await spawnWorker();
    const { sessionId } = await mine.say('Remember 42\n[[text I do]]');
    const prompt = 'Lose it\n[[hang]]';
    const lost = await mine.client.submit({ prompt, sessionId });
    const waiting = await mine.client.submit({ prompt: 'What was it?\n[[text 42]]', sessionId });
    await messages.waitForRequest((request) => request.prompt === prompt);
    const isKept = () => stores.query('SELECT 1 FROM session_entries WHERE uuid = $1', [lost.id]);
    while ((await isKept()).length === 0);
    worker.kill('SIGKILL');
    await spawnWorker();
    expect(await mine.client.untilEnded(waiting.id)).toMatchObject({ status: 'completed', result: '42' });
    expect(await mine.client.find(lost.id)).toMatchObject({
      status: 'failed',
      error: { code: 'worker_lost' },
    });
    expect(shown(messages)).toMatch(/Remember 42.*I do.*Lose it.*What was it/s);
  });
});
