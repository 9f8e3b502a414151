import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type EngineRequest } from './claude-engine.js';
import { Conversation } from './conversation.js';
import { RunAbort, Steering } from './index.js';
import { CONTINUATION, spokenIn } from './spoken-message.js';
import { BenchRun, EngineBench, eventually } from './test-support.js';
import { type TranscriptPart } from './transcript.js';
import { KeptInMemory } from './transcript-in-memory.js';

let bench: EngineBench;
let transcript: KeptInMemory;
beforeAll(async () => {
  bench = await EngineBench.open();
});
beforeEach(() => {
  bench.api.reset();
  transcript = new KeptInMemory();
});
afterAll(() => bench.close());

function begin(request: Partial<EngineRequest>, engine = bench.engine, steering?: Steering): BenchRun {
  const whole = { prompt: 'hello', permissionMode: 'acceptEdits', timeoutMs: 60_000, ...request } as const;
  const abort = new AbortController();
  const run = engine.run(whole, { signal: abort.signal, workspaceKey: 'work', transcript, steering });
  return new BenchRun(run, abort);
}
const end = async (request: Partial<EngineRequest>) => begin(request).ending();

const turns = () => bench.api.requests.filter(({ purpose }) => purpose === 'turn');
/** What the model was shown in its last turn, in its words. */
const shown = () => JSON.stringify((turns().at(-1)?.body as { messages: unknown }).messages);
const count = (whole: string, part: string) => whole.split(JSON.stringify(part).slice(1, -1)).length - 1;

describe('a conversation', () => {
  it('goes on in another launch, on another machine', async () => {
    await end({ prompt: 'Remember 42\n[[text I do]]', promptId: randomUUID() });
    const elsewhere = await EngineBench.open({ anthropic: { baseUrl: bench.api.url, apiKey: 'k' } });
    const second = begin({ prompt: 'What was it?\n[[text 42]]', promptId: randomUUID() }, elsewhere.engine);
    expect(await second.ending()).toMatchObject({ kind: 'completed', result: '42' });
    await elsewhere.close();
    expect(second.events[0]).toMatchObject({ type: 'started', cliSessionId: transcript.cliSessionId });
    expect(shown()).toMatch(/Remember 42.*I do.*What was it/s);
  });

  it('goes on from its later turns where the earlier ones are not given back', async () => {
    await end({ prompt: 'Remember 42\n[[text I do]]', promptId: randomUUID() });
    const later = transcript.entries.length;
    await end({ prompt: 'Remember 43\n[[text That too]]', promptId: randomUUID() });
    transcript.entries = transcript.entries.slice(later);
    expect(await end({ prompt: 'What was it?\n[[text 43]]', promptId: randomUUID() })).toMatchObject({
      ...{ kind: 'completed', result: '43' },
    });
    expect(shown()).toMatch(/Remember 43.*That too.*What was it/s);
    expect(shown()).not.toContain('Remember 42');
  });

  it('costs each run what it used itself', async () => {
    const figures = [];
    for (const prompt of ['one', 'two', 'three'])
      figures.push(await end({ prompt: `${prompt}\n[[usage in=1000 out=100]]`, promptId: randomUUID() }));
    for (const ending of figures) {
      expect(ending).toMatchObject({ usage: { inputTokens: 1000, outputTokens: 100 }, numTurns: 1 });
      expect(ending.costUsd).toBe(figures[0]?.costUsd);
    }
  });

  it('shows the model the system prompt of each run, not that of the first', async () => {
    const system = () => JSON.stringify((turns().at(-1)?.body as { system: unknown }).system);
    const asked: { request: Partial<EngineRequest>; said: RegExp; unsaid: RegExp }[] = [
      { request: {}, said: /Claude agent/, unsaid: /parrot|Speak up/ },
      { request: { systemPrompt: 'You are a parrot.' }, said: /parrot/, unsaid: /Speak up/ },
      { request: { appendSystemPrompt: 'Speak up.' }, said: /Speak up/, unsaid: /parrot/ },
      { request: { systemPrompt: 'You are a cat.' }, said: /cat/, unsaid: /parrot|Speak up/ },
      { request: {}, said: /Claude agent/, unsaid: /parrot|cat\.|Speak up/ },
    ];
    for (const { request, said, unsaid } of asked) {
      await end({ prompt: '[[text Yes]]', promptId: randomUUID(), ...request });
      expect(system()).toMatch(said);
      expect(system()).not.toMatch(unsaid);
    }
  });

  it.each([
    ['both were answered', 2],
    ['the second was not read', 1],
    ['neither was read', 0],
  ])('is told again what its user said further, and knows what it has: %s', async (_, kept) => {
    const prompt = { prompt: 'First\n[[deltas 40 50]]', promptId: randomUUID() };
    const messages = ['one', 'two'].map((word) => ({
      id: randomUUID(),
      text: `Say ${word}\n[[delay 1500]]\n[[text ${word}]]`,
    }));
    const said = (steering: Steering, all: typeof messages) => {
      for (const message of all) steering.say(message);
      return steering;
    };
    const steering = new Steering();
    const before = begin(prompt, bench.engine, steering);
    await before.until('text');
    for (const message of messages.slice(0, kept)) {
      steering.say(message);
      await before.until('user_message');
    }
    await before.ending();
    bench.api.reset();

    const again = begin(prompt, bench.engine, said(new Steering(), messages));
    const result = 'two';
    expect(await again.ending()).toMatchObject({ kind: 'completed', result });
    expect(again.all('user_message').map(({ messageId, isKept }) => [messageId, isKept])).toEqual(
      messages.map(({ id }, index) => [id, index < kept]),
    );
    expect(turns().filter(({ prompt: asked }) => asked === prompt.prompt)).toEqual([]);
    const timesShown = turns().length === 0 ? [1, 1] : messages.map(({ text }) => count(shown(), text));
    expect([turns().length === 0, timesShown]).toEqual([kept === 2, [1, 1]]);
  });

  it('can be read: what was said and done, and none of the notes between', async () => {
    const [first, second] = [randomUUID(), randomUUID()];
    await end({ prompt: 'Look\n[[think hm]]\n[[tool Glob {"pattern":"*"}]]', promptId: first });
    const slow = begin({
      prompt: `Tell\n[[deltas 30 300]]\n[[text ${'long '.repeat(30)}]]`,
      promptId: second,
    });
    await slow.until('text');
    slow.abort(new RunAbort('shutdown'));
    await slow.ending();
    await end({ prompt: 'Tell', promptId: second });
    const spoken = transcript.entries.flatMap((entry) => spokenIn(entry) ?? []);
    const prompts = spoken.filter(({ id }) => id === first || id === second);
    expect(prompts.map(({ role, content }) => [role, content[0]?.type])).toEqual([
      ['user', 'text'],
      ['user', 'text'],
    ]);
    expect(spoken.map(({ role, content }) => [role, ...content.map(({ type }) => type)].join(' '))).toEqual([
      ...['user text', 'assistant thinking', 'assistant tool_use', 'user tool_result', 'assistant text'],
      ...['user text', 'assistant text', 'assistant text'],
    ]);
    expect(spoken.every(({ createdAt }) => !Number.isNaN(Date.parse(createdAt)))).toBe(true);
  });

  it('is kept by the time its run has ended, and nothing of it is left outside of the launch', async () => {
    const leftovers = async () =>
      (await readdir(tmpdir())).filter((name) => name.startsWith('claude-resume'));
    const before = await leftovers();
    const promptId = randomUUID();
    await end({ prompt: '[[text Done]]', promptId });
    await end({ prompt: '[[text Done again]]', promptId: randomUUID() });
    expect(transcript.entries.map(({ uuid }) => uuid)).toContain(promptId);
    expect(JSON.stringify(transcript.entries)).toContain('Done again');
    expect(await leftovers()).toEqual(before);
  });

  it('of which nothing but notes was kept begins anew, and goes on from there', async () => {
    await end({ prompt: 'Lost', promptId: randomUUID() });
    transcript.cutAfter((entry) => entry.includes('queue-operation'));
    const { load } = transcript;
    const agent = { subpath: 'subagents/agent-1', entries: [{ type: 'agent_metadata' }] };
    transcript.load = async () => {
      const kept = await load.call(transcript);
      return kept && { ...kept, parts: [agent, ...kept.parts] };
    };
    expect(await end({ prompt: 'Anew\n[[text Here]]', promptId: randomUUID() })).toMatchObject({
      result: 'Here',
    });
    expect(await end({ prompt: 'On\n[[text Still here]]', promptId: randomUUID() })).toMatchObject({
      result: 'Still here',
    });
    expect(shown()).toMatch(/Anew.*Here.*On/s);
  });

  it('of which something could not be kept says so, and its run goes on', async () => {
    transcript.isOutOfOrder = true;
    const run = begin({ prompt: '[[text Done]]', promptId: randomUUID() });
    expect(await run.ending()).toMatchObject({ kind: 'completed', result: 'Done' });
    expect(transcript.gaps).toEqual(expect.arrayContaining([expect.stringContaining('out of order')]));
    expect(run.all('raw').map(({ line }) => JSON.stringify(line))).not.toContainEqual(
      expect.stringContaining('mirror_error'),
    );
  });

  it('keeps what subagents said apart, and goes on with it', async () => {
    const agent = { description: 'look', prompt: 'Sub here', subagent_type: 'general-purpose' };
    const prompt = `Go\n[[tool Agent ${JSON.stringify(agent)}]]\n[[text Done]]`;
    const request = { prompt, promptId: randomUUID(), allowedTools: ['Task'] };
    expect(await end(request)).toMatchObject({ kind: 'completed', result: 'Done' });
    const [said] = [...transcript.agents.values()];
    expect(JSON.stringify(said)).toContain('Sub here');
    expect(transcript.entries.flatMap((entry) => spokenIn(entry) ?? [])).toHaveLength(4);
    expect(await end({ prompt: 'On\n[[text Still here]]', promptId: randomUUID() })).toMatchObject({
      result: 'Still here',
    });
    expect(shown()).toMatch(/Go.*Done.*On/s);
  });

  it('has a file for each subagent, and none outside of its folder', async () => {
    const agent = 'subagents/agent-1';
    const entry = { type: 'user', uuid: 'u1', text: '\u0000 \ud800' };
    const parts = [
      { subpath: '', entries: [entry] },
      { subpath: agent, entries: [{ type: 'agent_metadata', agentType: 'helper' }, entry] },
    ];
    const keeping = (kept: TranscriptPart[]) =>
      Object.assign(new KeptInMemory(), {
        load: () => Promise.resolve({ cliSessionId: 's1', parts: kept }),
      });
    const request = { prompt: 'go', permissionMode: 'deny', timeoutMs: 1 } as const;
    const folder = await mkdtemp(join(tmpdir(), 'config-'));
    await (await Conversation.of(request, keeping(parts))).writeTo(folder);
    const read = (path: string) => readFile(join(folder, 'projects/kept', path), 'utf8');
    expect(JSON.parse(await read('s1.jsonl'))).toEqual(entry);
    expect(JSON.parse(await read(`s1/${agent}.jsonl`))).toEqual(entry);
    expect(JSON.parse(await read(`s1/${agent}.meta.json`))).toEqual({ agentType: 'helper' });
    for (const subpath of ['../s2', 'a/../../b', 'a\0b']) {
      const outside = await Conversation.of(request, keeping([...parts, { subpath, entries: [entry] }]));
      await expect(outside.writeTo(folder)).rejects.toThrow();
    }
    await rm(folder, { recursive: true });
  });
});

describe('a prompt that was interrupted', () => {
  const promptId = randomUUID();
  const kill = () => bench.pids().forEach((pid) => process.kill(pid, 'SIGKILL'));
  const isKept = () => transcript.entries.some(({ uuid }) => uuid === promptId);

  it('before its answer is answered, and asked once', async () => {
    await end({ prompt: 'Before\n[[text First]]', promptId: randomUUID() });
    const prompt = 'Do it\n[[hang times=1]]\n[[text Done]]';
    const first = begin({ prompt, promptId });
    await first.until('started');
    await Promise.all([eventually(isKept), bench.api.waitForRequest((request) => request.prompt === prompt)]);
    kill();
    expect(await first.ending()).toMatchObject({ kind: 'failed' });
    expect(await end({ prompt, promptId })).toMatchObject({ kind: 'completed', result: 'Done' });
    for (const { body } of turns().slice(1)) expect(count(JSON.stringify(body), prompt)).toBe(1);
    expect(transcript.entries.filter(({ uuid }) => uuid === promptId)).toHaveLength(1);
    await end({ prompt: 'And then?\n[[text That is all]]', promptId: randomUUID() });
    expect(count(shown(), prompt)).toBe(1);
    expect(shown()).toMatch(/Before.*First.*Do it.*Done.*And then/s);
  });

  it('again and again is still asked once', async () => {
    const prompt = 'Do it\n[[hang times=3]]\n[[text Done]]';
    for (let attempt = 1; attempt <= 3; attempt += 1) {
      const run = begin({ prompt, promptId });
      await run.until('started');
      await eventually(() => isKept() && turns().length === attempt);
      kill();
      await run.ending();
    }
    expect(await end({ prompt, promptId })).toMatchObject({ kind: 'completed', result: 'Done' });
    for (const { body } of turns()) expect(count(JSON.stringify(body), prompt)).toBe(1);
  });

  it('after a tool goes on after the tool', async () => {
    const prompt = `Do it\n[[tool Write {"file_path":"a.txt","content":"b"}]]\n[[deltas 30 200]]\n[[text ${'long '.repeat(30)}]]`;
    const first = begin({ prompt, promptId });
    await first.until('tool_result');
    await first.until('text');
    await eventually(() => JSON.stringify(transcript.entries).includes('tool_result'));
    kill();
    await first.ending();
    const second = begin({ prompt, promptId });
    expect(await second.ending()).toMatchObject({ kind: 'completed', numTurns: 1 });
    expect(second.all('tool_use')).toEqual([]);
    expect(count(shown(), prompt)).toBe(1);
    expect(count(shown(), 'File created successfully')).toBe(1);
  });

  it('within a tool goes on, and the model is told that nobody knows what the tool did', async () => {
    const prompt = 'Do it\n[[tool Glob {"pattern":"*"}]]\n[[text Done]]';
    await end({ prompt, promptId });
    transcript.cutAfter((entry) => entry.includes('"type":"tool_use"'));
    expect(await end({ prompt, promptId })).toMatchObject({ kind: 'completed', result: 'Done' });
    expect(count(shown(), prompt)).toBe(1);
    expect(shown()).toContain('its outcome is unknown');
  });

  it('within a subagent goes on', async () => {
    const agent = { description: 'look', prompt: 'Sub\n[[hang times=1]]', subagent_type: 'general-purpose' };
    const prompt = `Go\n[[tool Agent ${JSON.stringify(agent)}]]\n[[text Done]]`;
    const first = begin({ prompt, promptId, allowedTools: ['Task'] });
    await first.until('tool_use');
    await bench.api.waitForRequest((request) => request.prompt === agent.prompt);
    await eventually(() => JSON.stringify(transcript.entries).includes('"tool_use"'));
    kill();
    await first.ending();
    const second = begin({ prompt, promptId, allowedTools: ['Task'] });
    expect(await second.ending()).toMatchObject({ kind: 'completed', result: 'Done' });
    expect(count(shown(), prompt)).toBe(1);
    expect(await end({ prompt: 'On\n[[text Still here]]', promptId: randomUUID() })).toMatchObject({
      result: 'Still here',
    });
  });

  it.each(['shutdown', 'timeout'] as const)('by a %s is continued', async (reason) => {
    const prompt = `Do it\n[[deltas 30 200]]\n[[text ${'long '.repeat(30)}]]`;
    const first = begin({ prompt, promptId });
    await first.until('text');
    await eventually(isKept);
    first.abort(new RunAbort(reason));
    await first.ending();
    expect(await end({ prompt, promptId })).toMatchObject({ kind: 'completed' });
    expect(count(shown(), prompt)).toBe(1);
    expect(count(shown(), CONTINUATION)).toBe(1);
  });

  it('by the Messages API goes on', async () => {
    const prompt = 'Do it\n[[status 529 times=2]]\n[[text Done]]';
    expect(await end({ prompt, promptId })).toMatchObject({ error: { code: 'upstream_overloaded' } });
    expect(await end({ prompt, promptId })).toMatchObject({ kind: 'completed', result: 'Done' });
    expect(count(shown(), prompt)).toBe(1);
    expect(shown()).not.toContain('API Error');
  });

  it('in plan mode goes on', async () => {
    const prompt = 'Do it\n[[hang times=1]]\n[[text Done]]';
    const first = begin({ prompt, promptId, permissionMode: 'plan' });
    await first.until('started');
    await eventually(() => isKept() && turns().length === 1);
    kill();
    await first.ending();
    const second = begin({ prompt, promptId, permissionMode: 'plan' });
    expect(await second.ending()).toMatchObject({ kind: 'completed', result: 'Done' });
  });

  it('after its answer has that answer, and asks nobody', async () => {
    const prompt = '[[tool Glob {"pattern":"*"}]]\n[[text Done]]\n[[usage in=10 out=10]]';
    expect(await end({ prompt, promptId })).toMatchObject({ result: 'Done', numTurns: 2 });
    const asked = turns().length;
    const again = begin({ prompt, promptId });
    expect(await again.ending()).toMatchObject({
      kind: 'completed',
      result: 'Done',
      stopReason: 'end_turn',
      numTurns: 2,
      costUsd: 0,
      usage: { inputTokens: 0 },
    });
    expect(turns()).toHaveLength(asked);
  });

  it('before the transcript held it is asked as at first', async () => {
    const prompt = 'Do it\n[[hang times=1]]\n[[text Done]]';
    const first = begin({ prompt, promptId });
    await first.until('started');
    await eventually(() => turns().length === 1);
    kill();
    await first.ending();
    transcript.entries = [];
    expect(await end({ prompt, promptId })).toMatchObject({ kind: 'completed', result: 'Done' });
    expect(count(shown(), prompt)).toBe(1);
    expect(transcript.entries.filter(({ uuid }) => uuid === promptId)).toHaveLength(1);
  });
});
