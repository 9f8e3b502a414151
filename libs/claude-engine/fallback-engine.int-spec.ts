import { randomUUID } from 'node:crypto';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../messages-api/index.js';
import { FallbackEngine, RunAbort, Steering } from './index.js';
import { type EngineRequest } from './claude-engine.js';
import { type CliEngine, type CliEngineOptions } from './cli-engine.js';
import { BenchRun, KEY, SANDBOX } from './test-support.js';
import { type Transcript } from './transcript.js';
import { KeptInMemory } from './transcript-in-memory.js';

let api: MessagesApi;
let directory: string;
let engine: FallbackEngine;
const open = (options: Partial<CliEngineOptions> = {}) =>
  FallbackEngine.open({
    directory,
    anthropic: { baseUrl: api.url, apiKey: KEY },
    sandbox: SANDBOX,
    apiMaxRetries: 1,
    breaker: { failures: 1000 },
    ...options,
  });

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'fallback-'));
  api = await startMessagesApi();
  engine = await open();
});
beforeEach(() => api.reset());
afterAll(async () => {
  await engine.close();
  await api.close();
  await rm(directory, { recursive: true, force: true });
});

function begin(request: Partial<EngineRequest>, on = engine, transcript?: Transcript, workspaceKey = 'work') {
  const abort = new AbortController();
  const whole = { prompt: 'hello', permissionMode: 'deny', timeoutMs: 30_000, ...request } as const;
  const context = { signal: abort.signal, workspaceKey, ...(transcript ? { transcript } : {}) };
  return new BenchRun(on.run(whole, context), abort);
}
async function end(...args: Parameters<typeof begin>): Promise<BenchRun> {
  const run = begin(...args);
  await run.ending();
  return run;
}
const types = (run: BenchRun) => run.events.map(({ type }) => type).filter((type) => type !== 'raw');
const turns = () => api.requests.filter(({ purpose }) => purpose === 'turn');

describe('the Messages API without a CLI', () => {
  const ask = (prompt: string, request: Partial<EngineRequest> = {}) =>
    end({ prompt, engine: 'api', ...request });

  it('says what the CLI would say, and costs the same', async () => {
    const prompt =
      '[[think Hm]]\n[[text Hello there]]\n[[usage in=1000 out=100 cache_read=10 cache_creation=20]]';
    const alone = await ask(prompt);
    const cli = await end({ prompt, engine: 'cli' });
    const [first, ...rest] = types(alone);
    expect(first).toBe('started');
    expect(alone.events[0]).toMatchObject({ engine: 'api', model: 'claude-opus-5-5', cliVersion: null });
    expect([...new Set(rest)]).toEqual([...new Set(types(cli).slice(1))]);
    expect(alone.text()).toBe(cli.text());
    const told = await alone.ending();
    expect(told).toEqual({
      ...(await cli.ending()),
      costUsd: expect.closeTo((await cli.ending()).costUsd ?? 0, 9) as number,
    });
    expect(told).toMatchObject({ kind: 'completed', result: 'Hello there', numTurns: 1 });
  });

  it.each(['opus', 'sonnet', 'haiku', 'claude-opus-4-8', 'claude-haiku-4-5', 'never-heard-of'])(
    'reckons what %s costs as the CLI does',
    async (model) => {
      const prompt = '[[text x]]\n[[usage in=60000 out=3000 cache_read=50000 cache_creation=7000]]';
      const [alone, cli] = [await ask(prompt, { model }), await end({ prompt, model, engine: 'cli' })];
      const { costUsd, model: asked } = await cli.ending();
      expect(await alone.ending()).toMatchObject({ kind: 'completed', model: asked });
      expect((await alone.ending()).costUsd).toBeCloseTo(costUsd ?? -1, 6);
    },
  );

  it.each([
    ['[[status 401]]', 'upstream_authentication_failed'],
    ['[[status 400]]', 'upstream_invalid_request'],
    ['[[status 529]]', 'upstream_overloaded'],
    ['[[error overloaded_error]]', 'upstream_overloaded'],
    ['[[cut 2]]\n[[text one two three four]]', 'upstream_overloaded'],
    ['[[status 429 retry-after=3600]]', 'upstream_rate_limited'],
  ])('fails after %s as the CLI does: %s', async (prompt, code) => {
    const ending = await (await ask(prompt)).ending();
    expect(ending).toMatchObject({ kind: 'failed', error: { code } });
    if (code !== 'upstream_rate_limited' || ending.kind !== 'failed') return;
    expect(ending.error.retryAfterMs).toBeGreaterThan(3_590_000);
    expect(turns()).toHaveLength(1);
  });

  it('tries again, and voids what it had begun to say', async () => {
    const run = await ask('[[cut 2 times=1]]\n[[text one two three four]]');
    expect(await run.ending()).toMatchObject({
      kind: 'completed',
      result: 'one two three four',
      numTurns: 1,
    });
    expect(types(run).filter((type) => type !== 'text' && type !== 'usage')).toEqual([
      ...['started', 'retrying', 'message', 'ended'],
    ]);
  });

  it.each([
    ['cancelled', { kind: 'cancelled' }],
    ['shutdown', { kind: 'failed', isByServer: true }],
  ] as const)('ends at once when it is told to: %s', async (kind, ending) => {
    const run = begin({ prompt: '[[deltas 100 100]]', engine: 'api' });
    await run.until('text');
    run.abort(new RunAbort(kind));
    expect(await run.ending()).toMatchObject(ending);
    await api.waitForRequest(({ outcome }) => outcome === 'client_gone');
  });

  it('ends when its time is over, and when the API stalls', async () => {
    expect(await (await ask('[[hang]]', { timeoutMs: 300 })).ending()).toMatchObject({
      error: { code: 'timeout' },
    });
    const impatient = await open({ stallMs: 300 });
    const run = await end({ prompt: '[[hang]]', engine: 'api' }, impatient);
    expect(await run.ending()).toMatchObject({ error: { code: 'stalled', retryable: true } });
    await impatient.close();
  });

  it.each(['timeout', 'cancelled', 'shutdown', 'stalled'] as const)(
    'counts the cost of a message that broke off: %s',
    async (cause) => {
      const impatient = await open({ stallMs: cause === 'stalled' ? 4000 : 30_000 });
      // The first delta comes at once, the next one never does.
      const prompt = '[[deltas 100 20000]]\n[[usage in=1000000 out=1]]';
      const timeoutMs = cause === 'timeout' ? 4000 : 30_000;
      const run = begin({ prompt, engine: 'api', timeoutMs }, impatient);
      await run.until('text');
      if (cause === 'cancelled' || cause === 'shutdown') run.abort(new RunAbort(cause));
      const ending = await run.ending();
      expect(ending.kind).toBe(cause === 'cancelled' ? 'cancelled' : 'failed');
      expect(ending.usage).toMatchObject({ inputTokens: 1_000_000 });
      expect(ending.costUsd).toBeGreaterThan(3.9);
      await impatient.close();
    },
  );

  it('fails without having asked, where nobody could find out whether it may', async () => {
    const context = { signal: new AbortController().signal, workspaceKey: 'work' };
    const mayAsk = () => Promise.reject(new Error('Nobody knows.'));
    const whole = { prompt: 'x', permissionMode: 'deny', timeoutMs: 30_000, engine: 'api' } as const;
    const run = new BenchRun(engine.run(whole, { ...context, mayAsk }), new AbortController());
    expect(await run.ending()).toMatchObject({ kind: 'failed', error: { code: 'internal' } });
    expect(api.requests).toEqual([]);
  });

  it('answers by a schema, with a few tries', async () => {
    const outputSchema = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] };
    const call = (value: unknown) => `[[tool StructuredOutput ${JSON.stringify(value)}]]`;
    const run = await ask([call({ n: 'x' }), call({ n: 3 })].join('\n'), { outputSchema });
    expect(await run.ending()).toMatchObject({ structuredResult: { n: 3 }, result: '{"n":3}', numTurns: 2 });
    const bad = await ask('[[text no]]', { outputSchema });
    expect(await bad.ending()).toMatchObject({ error: { code: 'output_schema_mismatch' } });
    const short = await ask(call({ n: 'x' }), { outputSchema, maxTurns: 1 });
    expect(await short.ending()).toMatchObject({
      stopReason: 'max_turns',
      error: { code: 'max_turns_reached' },
    });
  });

  it('asks for no more than the budget pays for, and fails where it is passed', async () => {
    const run = await ask('[[usage in=1000000 out=10]]\n[[text x]]', { maxBudgetUsd: 0.5 });
    expect(await run.ending()).toMatchObject({
      stopReason: 'run_budget_reached',
      error: { code: 'run_budget_reached' },
      costUsd: expect.closeTo(4.0002, 6) as number,
    });
    expect(turns()[0]?.body).toMatchObject({ max_tokens: 25_001 });
  });

  it('asks only the models that the operator offers, and shows them no key of ours', async () => {
    const narrow = await open({ models: ['claude-sonnet-5-5'] });
    const run = await end({ prompt: 'x', engine: 'api', model: 'opus' }, narrow);
    expect(await run.ending()).toMatchObject({ error: { code: 'upstream_invalid_request' } });
    expect(turns()).toEqual([]);
    await narrow.close();
  });

  it.each([
    { tools: ['Read'] },
    { allowedTools: ['Read'] },
    { permissionMode: 'acceptEdits' },
    { permissionMode: 'plan', tools: [] },
  ] as Partial<EngineRequest>[])('answers nothing without the tools that it needs: %j', async (request) => {
    const run = await ask('x', request);
    expect(await run.ending()).toMatchObject({ error: { code: 'engine_unavailable', retryable: false } });
    expect(api.requests).toEqual([]);
  });
});

describe('a run without a CLI that is steered', () => {
  const message = (text: string) => ({ id: randomUUID(), text });
  const steered = (
    prompt: string,
    steering: Steering,
    {
      on = engine,
      transcript,
      ...request
    }: Partial<EngineRequest> & { on?: FallbackEngine; transcript?: Transcript } = {},
  ) => {
    const abort = new AbortController();
    const whole = { prompt, permissionMode: 'deny', timeoutMs: 30_000, engine: 'api', ...request } as const;
    const context = { signal: abort.signal, workspaceKey: 'steered', steering };
    return new BenchRun(on.run(whole, { ...context, ...(transcript ? { transcript } : {}) }), abort);
  };
  const shown = () => JSON.stringify((turns().at(-1)?.body as { messages: unknown }).messages);

  it('answers what comes while it speaks, and keeps it', async () => {
    const [steering, transcript] = [new Steering(), new KeptInMemory()];
    const promptId = randomUUID();
    const run = steered('[[deltas 5 50]]\n[[usage in=10 out=1]]', steering, { transcript, promptId });
    await run.until('text');
    const said = message('[[text And that.]]\n[[usage in=100 out=2]]');
    steering.say(said);
    steering.say(said);
    expect(await run.ending()).toMatchObject({
      kind: 'completed',
      result: 'And that.',
      numTurns: 2,
      usage: { inputTokens: 110, outputTokens: 3 },
    });
    expect(run.all('user_message')).toEqual([
      { type: 'user_message', messageId: said.id, text: said.text, isKept: false },
    ]);
    expect(run.all('message').map(({ turn }) => turn)).toEqual([1, 2]);
    expect(run.all('raw')).toEqual([]);
    expect(turns()).toHaveLength(2);
    const { entries } = transcript;
    expect(entries.map(({ type }) => type)).toEqual(['user', 'assistant', 'user', 'assistant']);
    expect(entries.map(({ uuid }) => uuid)).toMatchObject({ 0: promptId, 2: said.id });
    expect(entries.slice(1).map(({ parentUuid }) => parentUuid)).toEqual(
      entries.slice(0, -1).map(({ uuid }) => uuid),
    );

    const again = new Steering();
    again.say(said);
    const repeated = steered('x', again, { transcript, promptId });
    expect(await repeated.ending()).toMatchObject({ result: 'And that.', costUsd: 0 });
    expect(repeated.all('user_message')).toMatchObject([{ messageId: said.id, isKept: true }]);
    expect(turns()).toHaveLength(2);
    const further = new Steering();
    further.say(said);
    further.say(message('[[text Third.]]'));
    expect(await steered('x', further, { transcript, promptId }).ending()).toMatchObject({
      result: 'Third.',
    });
    expect(shown()).toMatch(/deltas 5.*And that.*Third/s);
    expect(shown()).not.toContain('interrupted by the server');
  });

  it.each(['asked', 'answered already'])('closes its inbox before it ends: %s', async (when) => {
    const [transcript, promptId] = [new KeptInMemory(), randomUUID()];
    if (when !== 'asked') await steered('[[text First.]]', new Steering(), { transcript, promptId }).ending();
    let asked = 0;
    const steering: Steering = new Steering(() => {
      asked += 1;
      if (asked === 1) steering.say(message('[[text Just in time.]]'));
      return Promise.resolve(asked > 1);
    });
    const run = steered('[[text First.]]', steering, { transcript, promptId });
    expect(await run.ending()).toMatchObject({ kind: 'completed', result: 'Just in time.' });
    expect(asked).toBe(2);
  });

  it('answers further messages by the schema as well', async () => {
    const outputSchema = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] };
    const call = (n: number) => `[[tool StructuredOutput ${JSON.stringify({ n })}]]`;
    const steering = new Steering();
    steering.say(message(call(2)));
    const run = steered(call(1), steering, { outputSchema });
    expect(await run.ending()).toMatchObject({ kind: 'completed', structuredResult: { n: 2 }, numTurns: 2 });
    expect(shown()).toMatch(/tool_use.*tool_result.*StructuredOutput/s);
  });

  it('interrupted, is completed with what it had said', async () => {
    const [steering, transcript] = [new Steering(), new KeptInMemory()];
    const run = steered('[[deltas 50 100]]\n[[usage in=1000 out=1]]', steering, { transcript });
    await run.until('text');
    steering.interrupt();
    const ending = await run.ending();
    expect(ending).toMatchObject({
      kind: 'completed',
      result: expect.stringMatching(/^word-1/) as string,
      stopReason: 'interrupted',
      numTurns: 1,
      usage: { inputTokens: 1000 },
    });
    expect(ending.costUsd).toBeGreaterThan(0);
    await api.waitForRequest(({ outcome }) => outcome === 'client_gone');
    await end({ prompt: 'Go on', engine: 'cli', promptId: randomUUID() }, engine, transcript);
    expect(shown()).toMatch(/deltas 50.*word-1.*Go on/s);
  });

  it.each(['before it began', 'while it waits to try again'])(
    'interrupted %s, says nothing',
    async (when) => {
      const steering = new Steering();
      if (when === 'before it began') steering.interrupt();
      const run = steered('[[status 429 retry-after=50]]', steering);
      if (when !== 'before it began') {
        await run.until('retrying');
        steering.interrupt();
      }
      expect(await run.ending()).toMatchObject({ kind: 'completed', result: '', stopReason: 'interrupted' });
    },
  );

  it('interrupted while something waits, answers that', async () => {
    const steering = new Steering();
    const run = steered('[[deltas 50 100]]', steering);
    await run.until('text');
    steering.say(message('[[text This instead.]]'));
    steering.interrupt();
    expect(await run.ending()).toMatchObject({
      kind: 'completed',
      result: 'This instead.',
      stopReason: 'end_turn',
    });
    expect(run.all('retrying')).toEqual([]);
  });

  it('is so too where it stands in for a CLI that is missing', async () => {
    const without = await open({ cliPath: join(directory, 'nowhere') });
    const steering = new Steering();
    const run = steered('[[deltas 5 50]]', steering, { on: without, engine: 'auto' });
    await run.until('text');
    steering.say(message('[[text That too.]]'));
    expect(await run.ending()).toMatchObject({ kind: 'completed', result: 'That too.', numTurns: 2 });
    await without.close();
  });
});

describe('a conversation', () => {
  it('goes on from one engine to the other and back, and is asked once', async () => {
    const transcript = new KeptInMemory();
    const say = (prompt: string, by: 'api' | 'cli', promptId = randomUUID()) =>
      end({ prompt, promptId, engine: by }, engine, transcript);
    await say('Remember 42\n[[text I do]]', 'api');
    await say('And 43\n[[text Both]]', 'cli');
    expect(await (await say('What were they?\n[[text 42 and 43]]', 'api')).ending()).toMatchObject({
      kind: 'completed',
      result: '42 and 43',
    });
    const shown = JSON.stringify((turns().at(-1)?.body as { messages: unknown }).messages);
    expect(shown).toMatch(/Remember 42.*I do.*And 43.*Both.*What were they/s);
    const last = randomUUID();
    await say('Sure?\n[[text Sure]]', 'cli', last);
    expect(JSON.stringify(turns().at(-1)?.body)).toMatch(/Remember 42.*I do.*And 43.*Both.*42 and 43.*Sure/s);
    const before = api.requests.length;
    expect(await (await say('Sure?\n[[text Sure]]', 'api', last)).ending()).toMatchObject({
      result: 'Sure',
      costUsd: 0,
    });
    expect(api.requests).toHaveLength(before);
  });

  it('is the CLI’s alone where tools were used', async () => {
    const transcript = new KeptInMemory();
    await end({ prompt: '[[tool Glob {"pattern":"*"}]]', promptId: randomUUID() }, engine, transcript);
    const run = await end({ prompt: 'And?', promptId: randomUUID(), engine: 'api' }, engine, transcript);
    expect(await run.ending()).toMatchObject({
      error: { code: 'engine_unavailable', detail: expect.stringMatching(/tools/) as string },
    });
  });
});

describe('a CLI that cannot be started', () => {
  const OLD = '#!/bin/sh\necho "2.1.5 (Claude Code)"\n';
  const BROKEN = '#!/bin/sh\nexit 7\n';
  const clis: [string, string | null][] = [
    ['is missing', null],
    ['is too old', OLD],
    ['ends before it has asked', BROKEN],
  ];

  it.each(clis)('%s: the API answers what needs no tools, and nothing else', async (name, source) => {
    const cliPath = join(directory, name.replaceAll(' ', '-'));
    if (source !== null) {
      await writeFile(cliPath, source);
      await chmod(cliPath, 0o755);
    }
    const without = await open({ cliPath });
    let asked = 0;
    const mayAsk = () => Promise.resolve(void (asked += 1));
    const whole = { prompt: '[[text Hi]]', permissionMode: 'deny', timeoutMs: 30_000 } as const;
    const context = { signal: new AbortController().signal, workspaceKey: 'empty', mayAsk };
    const run = new BenchRun(without.run(whole, context), new AbortController());
    expect(await run.ending()).toMatchObject({ kind: 'completed', result: 'Hi' });
    expect(run.events[0]).toMatchObject({ type: 'started', engine: 'api' });
    expect(asked).toBe(1);

    const insists = await end({ prompt: '[[text Hi]]', engine: 'cli' }, without);
    expect(await insists.ending()).toMatchObject({ error: { code: 'engine_unavailable', retryable: true } });
    const needs = await end({ prompt: '[[text Hi]]', allowedTools: ['Read'] }, without);
    expect(await needs.ending()).toMatchObject({ error: { code: 'engine_unavailable', retryable: true } });
    await mkdir(join(directory, 'workspaces/full/src'), { recursive: true });
    const holds = await end({ prompt: '[[text Hi]]' }, without, undefined, 'full');
    expect(await holds.ending()).toMatchObject({ error: { code: 'engine_unavailable' } });
    expect(await without.probe()).toMatchObject({
      isAvailable: source === BROKEN && false,
      hasFallback: true,
    });
    await without.close();
  });

  it('does not step aside for one that has begun to ask', async () => {
    const run = begin({ prompt: '[[hang]]' });
    await run.until('started');
    await api.waitForRequest(({ prompt }) => prompt === '[[hang]]');
    const { cli } = engine as unknown as { cli: CliEngine };
    for (const { pid } of cli.liveLaunches()) process.kill(pid ?? 0, 'SIGKILL');
    expect(await run.ending()).toMatchObject({ kind: 'failed', error: { code: 'internal' } });
  });
});
