import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { deferred } from './deferred.js';
import { type EngineRequest, RunAbort, type RunContext, Steering, type SupplyOptions } from './index.js';
import { familyOf } from './process-memory.js';
import { isAlive, identifyProcess } from './process-table.js';
import { bash, type BenchRun, EngineBench, eventually, NO_SANDBOX, SANDBOX } from './test-support.js';
import { KeptInMemory } from './transcript-in-memory.js';

let bench: EngineBench;
afterEach(() => bench.close());

async function open(supply: SupplyOptions, sandbox = SANDBOX): Promise<void> {
  bench = await EngineBench.open({ supply: { slots: 4, ...supply }, sandbox });
}

const isSleeping = (pid: number) =>
  existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`, 'latin1').startsWith('sleep');
const launched = () => bench.notices.filter(({ kind }) => kind === 'launched').length;
const figures = () => bench.engine.supplyFigures;
const sparesAre = (count: number) => eventually(() => figures().spares.count === count);

const turns = () => bench.api.requests.filter(({ purpose }) => purpose === 'turn');
/** What the model was sent, without what differs from launch to launch. */
const sent = () =>
  JSON.stringify(turns().at(-1)?.body).replaceAll(
    /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{64}/g,
    'ID',
  );
const headers = () => {
  const { headers: all } = turns().at(-1) ?? { headers: {} };
  return Object.keys(all).sort();
};

/** A session: its runs go on with one transcript, in one workspace. */
class Session {
  readonly transcript = new KeptInMemory();
  constructor(readonly key = `s-${randomUUID()}`) {}

  begin(prompt: string, request: Partial<EngineRequest> = {}, context: Partial<RunContext> = {}): BenchRun {
    const { key, transcript } = this;
    return bench.begin({ prompt, promptId: randomUUID(), ...request }, key, { transcript, ...context });
  }

  async end(prompt: string, ...more: [Partial<EngineRequest>?, Partial<RunContext>?]) {
    const run = this.begin(prompt, ...more);
    return { ending: await run.ending(), run, left: await run.iterator.next() };
  }
}

const isLinux = process.platform === 'linux';
(isLinux ? describe : describe.skip)('spares', () => {
  /** The kinds of what was said, in order. How often the CLI notes where it stands in between is a matter of its clock. */
  const saidIn = ({ entries }: KeptInMemory) =>
    entries
      .map(({ type }) => type)
      .filter((type) => ['user', 'assistant', 'attachment', 'system'].includes(type));

  it('answer without a start, with exactly what a CLI of its own would have sent', async () => {
    await open({ spares: 0 });
    const request = { prompt: 'Hi\n[[usage in=1000 out=100]]\n[[text Hello]]', promptId: randomUUID() };
    const [cold, coldTranscript] = [new Session(), new KeptInMemory()];
    const coldRun = bench.begin(request, cold.key, { transcript: coldTranscript });
    const coldEnding = await coldRun.ending();
    const expected = { sent: sent(), headers: headers() };
    await bench.close();

    await open({ spares: 1 });
    await sparesAre(1);
    const transcript = new KeptInMemory();
    const warm = bench.begin(request, 'warm', { transcript });
    expect(await warm.ending()).toEqual(coldEnding);
    expect({ sent: sent(), headers: headers() }).toEqual(expected);
    expect(turns()).toHaveLength(1);
    expect(figures().spares).toMatchObject({ hits: 1, misses: 0 });
    const started = warm.all('started')[0];
    expect(started?.cliSessionId).toBe(transcript.cliSessionId);
    expect(saidIn(transcript)).toEqual(saidIn(coldTranscript));
  });

  it('are replaced, ask nothing by themselves, and leave nothing when the engine closes', async () => {
    await open({ spares: 2 });
    await sparesAre(2);
    await bench.run({ prompt: '[[text one]]' }, 'one');
    await sparesAre(2);
    expect(bench.api.requests.filter(({ purpose }) => purpose !== 'turn')).toEqual([]);
    const pids = bench.pids();
    expect(pids).toHaveLength(2);
    const processes = pids.map((pid) => identifyProcess(pid));
    await bench.engine.close();
    expect(processes.filter((found) => found && isAlive(found))).toEqual([]);
    expect(await readdir(join(bench.directory, 'launches'))).toEqual([]);
    expect(await readdir(join(bench.directory, 'workspaces'))).toEqual(['one']);
  });

  it('leave a workspace alone that is there already', async () => {
    await open({ spares: 1 });
    await sparesAre(1);
    await mkdir(join(bench.directory, 'workspaces', 'given'), { recursive: true });
    await writeFile(join(bench.directory, 'workspaces', 'given', 'b.txt'), 'given');
    const read = await bench.run({ prompt: '[[tool Read {"file_path":"/workspace/b.txt"}]]' }, 'given');
    expect(read.all('tool_result')[0]?.content).toMatch(/given/);
    expect(figures().spares).toMatchObject({ count: 1, hits: 0 });
  });

  it("work in the folder that has the session's name by then", async () => {
    const request = { permissionMode: 'acceptEdits' as const };
    await open({ spares: 2 });
    await sparesAre(2);
    // Asked for once, it is kept ready from then on.
    await bench.run({ prompt: '[[text first]]', ...request }, 'first');
    await eventually(() => launched() === 4);
    await sparesAre(2);
    await bench.run(
      { prompt: '[[tool Write {"file_path":"/workspace/c.txt","content":"c"}]]', ...request },
      'work',
    );
    expect(figures().spares.hits).toBe(1);
    expect(await readdir(bench.workspace())).toEqual(['c.txt']);
  });

  it('give way: the dead and the old are replaced, and without memory there are none', async () => {
    await open({ spares: 1, spareMaxAgeMs: 60_000 });
    await sparesAre(1);
    const [pid] = bench.pids();
    process.kill(pid ?? 0, 'SIGKILL');
    await eventually(() => launched() === 2);
    await sparesAre(1);
    await bench.close();

    await open({ spares: 1, spareMaxAgeMs: 1 });
    await eventually(() => launched() >= 2);
    await bench.close();

    await open({ spares: 1, memoryBudgetBytes: 1 });
    await bench.run({ prompt: '[[text one]]' });
    expect(figures().spares.count).toBe(0);
    expect(launched()).toBe(1);
  });

  it('are for what is asked for, also while all slots are taken, and are not exchanged for what is asked for once', async () => {
    await open({ spares: 1, slots: 1 });
    await sparesAre(1);
    const speakOn = async (name: string) => {
      const run = bench.begin({ prompt: '[[deltas 200 100]]', permissionMode: 'acceptEdits' }, name);
      await run.until('text');
      return run;
    };
    const end = async (run: BenchRun) => {
      run.abort(new RunAbort('cancelled'));
      await run.ending();
    };
    await end(await speakOn('once'));
    await bench.run({ prompt: '[[text usual]]' }, 'usual');
    expect(figures().spares).toMatchObject({ hits: 1, misses: 1 });
    await sparesAre(1);

    const before = launched();
    await end(await speakOn('second'));
    const busy = await speakOn('third');
    await eventually(() => launched() === before + 3);
    await sparesAre(1);
    await end(busy);
    await end(await speakOn('fourth'));
    expect(figures().spares).toMatchObject({ hits: 2, misses: 3 });
  });

  it('are not exchanged for what each caller asks for in other words', async () => {
    await open({ spares: 1, slots: 2 });
    await sparesAre(1);
    for (const name of ['one', 'two', 'three'])
      await bench.run({ prompt: '[[text Mine]]', appendSystemPrompt: name }, name);
    await bench.run({ prompt: '[[text usual]]' }, 'usual');
    expect(figures().spares).toMatchObject({ hits: 1, misses: 3, evictions: 0 });
  });

  it('are none without a sandbox', async () => {
    await open({ spares: 2 }, NO_SANDBOX);
    await bench.run({ prompt: '[[text one]]' });
    expect(figures()).toMatchObject({ spares: { count: 0, hits: 0, misses: 0 } });
  });

  it('wait for leave to ask, and end with their run', async () => {
    await open({ spares: 1 });
    await sparesAre(1);
    const [pid] = bench.pids();
    const refused = bench.begin({ prompt: '[[text no]]' }, 'no', {
      mayAsk: () => Promise.reject(new Error()),
    });
    expect(await refused.ending()).toMatchObject({ kind: 'failed', error: { code: 'internal' } });
    await refused.iterator.next();
    expect(turns()).toEqual([]);
    expect(identifyProcess(pid ?? 0)).toBeNull();
    await sparesAre(1);
    const cancelled = bench.begin({ prompt: '[[hang]]' }, 'cancelled');
    await cancelled.until('started');
    cancelled.abort(new RunAbort('cancelled'));
    expect((await cancelled.ending()).kind).toBe('cancelled');
    expect(figures().spares.hits).toBe(2);
  });
});

describe('a session that keeps its CLI', () => {
  it('goes on without a start, and each run costs what it used itself', async () => {
    await open({ sessionIdleMs: 60_000 });
    const session = new Session();
    const endings = [];
    for (const prompt of ['one', 'two', 'three'])
      endings.push((await session.end(`${prompt}\n[[usage in=1000 out=100]]\n[[text ${prompt}!]]`)).ending);
    expect(launched()).toBe(1);
    for (const ending of endings)
      expect(ending).toMatchObject({
        kind: 'completed',
        numTurns: 1,
        usage: { inputTokens: 1000, outputTokens: 100 },
        costUsd: endings[0]?.costUsd,
      });
    expect(figures()).toMatchObject({ keptSessions: { count: 1, hits: 2, misses: 0, evictions: 0 } });
    expect(JSON.stringify(turns().at(-1)?.body)).toMatch(/one!.*two!.*three/s);
  });

  it('is, to the model, the same as one that is resumed', async () => {
    const said = async (sessionIdleMs: number) => {
      await open({ sessionIdleMs });
      const session = new Session();
      await session.end('one\n[[text One]]');
      await session.end('two\n[[text Two]]');
      const shown = (turns().at(-1)?.body as { messages: unknown }).messages;
      return { shown, session };
    };
    const { shown: kept, session } = await said(60_000);
    // Elsewhere it goes on from the transcript, which is whole.
    const idle = figures();
    expect(idle.keptSessions.hits).toBe(1);
    await bench.engine.forgetWorkspace(session.key);
    await session.end('three\n[[text Three]]');
    expect(launched()).toBe(2);
    expect(JSON.stringify(turns().at(-1)?.body)).toMatch(/One.*two.*Two.*three/s);
    await bench.close();
    const { shown: resumed } = await said(0);
    const texts = (messages: unknown) => JSON.stringify(messages).match(/\[\[text \w+\]\]/g);
    expect(texts(kept)).toEqual(texts(resumed));
  });

  it('gets another where the request needs another, or the conversation went on elsewhere', async () => {
    await open({ sessionIdleMs: 60_000 });
    const session = new Session();
    await session.end('one\n[[text One]]');
    await session.end('two\n[[text Two]]', { appendSystemPrompt: 'Shout.' });
    expect(launched()).toBe(2);
    session.transcript.mark += 1;
    await session.end('three\n[[text Three]]', { appendSystemPrompt: 'Shout.' });
    expect(launched()).toBe(3);
    // A prompt that was asked already is not asked again.
    const promptId = randomUUID();
    await session.end('four\n[[text Four]]', { promptId, appendSystemPrompt: 'Shout.' });
    expect(launched()).toBe(3);
    const { ending } = await session.end('four\n[[text Four]]', { promptId, appendSystemPrompt: 'Shout.' });
    expect(ending).toMatchObject({ kind: 'completed', result: 'Four', costUsd: 0 });
    expect(turns()).toHaveLength(4);
    expect(figures()).toMatchObject({ keptSessions: { hits: 1, misses: 2 } });
  });

  it('loses it after a while, to a run that has none, by its own death, and with its workspace', async () => {
    await open({ sessionIdleMs: 60_000, slots: 1 });
    const [first, second] = [new Session(), new Session()];
    await first.end('[[text One]]');
    await second.end('[[text Two]]');
    await eventually(() => bench.pids().length === 1);
    expect(figures().keptSessions).toMatchObject({ count: 1, evictions: 1 });
    process.kill(bench.pids()[0] ?? 0, 'SIGKILL');
    await bench.allGone();
    await second.end('[[text Three]]');
    await bench.engine.removeWorkspace(second.key);
    expect(bench.engine.liveLaunches()).toEqual([]);
    await bench.close();

    await open({ sessionIdleMs: 1 });
    await new Session().end('[[text One]]');
    await bench.allGone();
    expect(await readdir(join(bench.directory, 'launches'))).toEqual([]);
  });

  it('does not keep one that failed or was cancelled, nor what a tool has left behind', async () => {
    await open({ sessionIdleMs: 60_000 });
    const session = new Session();
    await session.end('[[status 400]]');
    await bench.allGone();
    const cancelled = session.begin('[[hang]]');
    await cancelled.until('started');
    cancelled.abort(new RunAbort('cancelled'));
    await cancelled.ending();
    await bench.allGone();
    if (!isLinux) return;
    // What a tool has left behind is gone, whether the CLI has stayed without it or went along.
    await session.end(bash('setsid sleep 300 >/dev/null 2>&1 &'), { allowedTools: ['Bash'] });
    await eventually(() => bench.pids().every((pid) => !familyOf(pid).some(isSleeping)));
    expect(figures().keptSessions.hits).toBe(0);
  });

  it('asks the model nothing until it is asked itself', async () => {
    await open({ sessionIdleMs: 60_000 });
    const session = new Session();
    await session.end('[[text One]]');
    const run = bench.begin({ prompt: '[[text Two]]', promptId: randomUUID() }, session.key, {
      transcript: session.transcript,
      mayAsk: () => Promise.reject(new Error('no')),
    });
    expect(await run.ending()).toMatchObject({ kind: 'failed', error: { code: 'internal' } });
    expect(turns()).toHaveLength(1);
    await bench.allGone();
  });

  it('has its question before it may ask the model, and tells, keeps and asks nothing until then', async () => {
    await open({ sessionIdleMs: 60_000 });
    const session = new Session();
    await session.end('[[text One]]');
    const { transcript } = session;
    const before = transcript.entries.length;
    const leave = deferred<undefined>();
    const run = session.begin('[[text Two]]', {}, { mayAsk: () => leave.promise });
    const ending = run.ending();
    await sleep(1000);
    expect({ events: run.events, kept: transcript.entries.length, turns: turns().length }).toEqual({
      ...{ events: [], kept: before, turns: 1 },
    });
    const leftAt = Date.now();
    leave.resolve(undefined);
    expect(await ending).toMatchObject({ kind: 'completed', result: 'Two' });
    expect(turns()).toHaveLength(2);
    expect(transcript.entries.length).toBeGreaterThan(before);
    const asked = bench.notices.findLast((notice) => notice.kind === 'first_word');
    expect(asked?.askedAt).toBeLessThan(leftAt);
  });

  it('can be steered, and then has told all of it', async () => {
    await open({ sessionIdleMs: 60_000 });
    const session = new Session();
    await session.end('[[usage in=1000 out=100]]\n[[text One]]');
    const steering = new Steering();
    const run = session.begin('[[deltas 40 50]]\n[[usage in=10 out=1]]', {}, { steering });
    await run.until('text');
    steering.say({ id: randomUUID(), text: '[[text And that.]]\n[[usage in=100 out=2]]' });
    expect(await run.ending()).toMatchObject({
      ...{ kind: 'completed', result: 'And that.', numTurns: 2 },
      usage: { inputTokens: 110, outputTokens: 3 },
    });
    expect(launched()).toBe(1);
    await bench.allGone();
    await session.end('[[text Three]]', {}, { steering: new Steering() });
    expect(launched()).toBe(2);
    expect(figures().keptSessions).toMatchObject({ count: 1, hits: 1, misses: 1 });
  });

  it('asks nobody for permission but the run that it is about', async () => {
    await open({ sessionIdleMs: 60_000 }, NO_SANDBOX);
    const session = new Session();
    const asked: string[] = [];
    const write = (file: string) => `[[tool Write ${JSON.stringify({ file_path: file, content: 'x' })}]]`;
    const end = (file: string) =>
      session.end(
        write(file),
        { permissionMode: 'ask' },
        {
          askPermission: ({ input }) => {
            asked.push(`${file} ${String(input.content)}`);
            return Promise.resolve({ decision: 'allow' });
          },
        },
      );
    await end('a.txt');
    await end('b.txt');
    expect(asked).toEqual(['a.txt x', 'b.txt x']);
    await session.end(write('c.txt'));
    expect((await readdir(bench.workspace(session.key))).toSorted()).toEqual(['a.txt', 'b.txt']);
    expect(figures().keptSessions).toMatchObject({ count: 1, hits: 0 });
  });
});
