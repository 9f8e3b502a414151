import Anthropic from '@anthropic-ai/sdk';
import fc from 'fast-check';
import { createDirectiveScript, type MessagesApi, startMessagesApi } from './index.js';

let api: MessagesApi;
let client: Anthropic;

beforeAll(async () => {
  api = await startMessagesApi();
  client = new Anthropic({ baseURL: api.url, apiKey: 'sk-test', maxRetries: 0 });
});
beforeEach(() => api.reset());
afterAll(() => api.close());

type Content = Anthropic.MessageParam['content'];

function stream(content: Content, later: Anthropic.MessageParam[] = []) {
  return client.messages.stream({
    model: 'claude-test',
    max_tokens: 100,
    messages: [{ role: 'user', content }, ...later],
  });
}

const say = (content: Content) => stream(content).finalText();

async function deltasOf(prompt: string): Promise<string[]> {
  const deltas: string[] = [];
  await stream(prompt)
    .on('text', (delta) => deltas.push(delta))
    .done();
  return deltas;
}

describe('a prompt without a directive', () => {
  it('gets an answer that says what it is, and the prompt back', async () => {
    const answer = await say('Why is the sky blue?');
    expect(answer).toContain('demo mode: a scripted answer');
    expect(answer).toMatch(/Why is the sky blue\?$/);
  });

  it('is repeated up to 500 characters', async () => {
    expect(await say('ü'.repeat(501))).toMatch(/[^ü]ü{500}…$/);
  });

  it('takes its time in demo mode', async () => {
    const script = createDirectiveScript({ demoDeltaMs: 30 });
    api.script(async (request) => {
      const answer = await script(request);
      return {
        kind: 'error',
        status: 400,
        type: 'api_error',
        message: JSON.stringify(answer),
        retryAfterS: null,
      };
    });
    await expect(say('hi')).rejects.toThrow(String.raw`\"deltaMs\":30`);
  });
});

describe('[[echo]]', () => {
  it('answers any prompt unchanged', async () => {
    const around = fc.string({ unit: 'binary', maxLength: 300 }).filter((text) => !text.includes('[['));
    await fc.assert(
      fc.asyncProperty(around, around, async (before, after) => {
        const prompt = `${before}\n[[echo]]\n${after}`;
        expect(await say(prompt)).toBe(prompt);
        expect(await say([{ type: 'text', text: prompt }])).toBe(prompt);
        expect(api.requests.at(-1)?.prompt).toBe(prompt);
      }),
      { numRuns: 50 },
    );
  });

  it('answers a prompt of a megabyte unchanged', async () => {
    const prompt = `[[echo]]\n${'wörd '.repeat(200_000)}`;
    expect(await say(prompt)).toBe(prompt);
  });
});

describe('what is said', () => {
  it('is the text of the directive', async () => {
    expect(await say('please\n[[text Hello]]\n[[text there]]')).toBe('Hello\nthere');
  });

  it('comes in as many deltas as asked for: its text if there is one, else words', async () => {
    expect(await deltasOf('[[deltas 3 0]]\n[[text abcdefg]]')).toEqual(['ab', 'cd', 'efg']);
    expect(await deltasOf('[[deltas 9 0]]\n[[text a😀]]')).toEqual(['a', '😀']);
    expect(await deltasOf('[[deltas 3 0]]')).toEqual(['word-1', ' word-2', ' word-3']);
  });

  it('comes after the thinking, and with the usage, of the directives', async () => {
    const message = await stream('[[think Hm]]\n[[text Yes]]\n[[usage in=7 out=3]]').finalMessage();
    expect(message.content).toMatchObject([{ thinking: 'Hm' }, { text: 'Yes' }]);
    expect(message.usage).toMatchObject({ input_tokens: 7, output_tokens: 3 });
  });

  it('comes no sooner than it is told', async () => {
    const start = performance.now();
    await say('[[delay 60]]\n[[deltas 3 20]]');
    expect(performance.now() - start).toBeGreaterThanOrEqual(60 + 2 * 20 - 3);
  });
});

describe('[[tool …]]', () => {
  const asked = (name: string): Anthropic.MessageParam => ({
    role: 'assistant',
    content: [{ type: 'tool_use', id: `toolu_${name}`, name, input: {} }],
  });
  const got = (name: string, content: string, isError = false): Anthropic.MessageParam => ({
    role: 'user',
    content: [{ type: 'tool_result', tool_use_id: `toolu_${name}`, content, is_error: isError }],
  });

  it('asks for one tool after the other, then tells the last result', async () => {
    const prompt = '[[tool A {"n":1}]]\n[[tool B]]';
    const first = await stream(prompt).finalMessage();
    expect(first).toMatchObject({ stop_reason: 'tool_use', content: [{ name: 'A', input: { n: 1 } }] });
    const second = await stream(prompt, [asked('A'), got('A', 'one')]).finalMessage();
    expect(second.content).toMatchObject([{ name: 'B', input: {} }]);
    const third = stream(prompt, [asked('A'), got('A', 'one'), asked('B'), got('B', 'two')]);
    expect(await third.finalText()).toBe('The tool said: two');
  });

  it('tells a failure apart, and says the text of a directive instead if there is one', async () => {
    const later = [asked('A'), got('A', 'denied', true)];
    expect(await stream('[[tool A]]', later).finalText()).toBe('The tool failed: denied');
    expect(await stream('[[tool A]]\n[[text Done]]', later).finalText()).toBe('Done');
  });
});

describe('a failure', () => {
  it('happens every time unless told otherwise', async () => {
    await expect(say('[[status 529]]')).rejects.toMatchObject({ status: 529 });
    await expect(say('[[status 529]]')).rejects.toMatchObject({ status: 529 });
  });

  it('with times=2 happens to the first two requests with that prompt only', async () => {
    const prompt = '[[status 500 times=2]]\n[[text At last]]';
    await expect(say(prompt)).rejects.toMatchObject({ status: 500 });
    await expect(say(`${prompt}\nanother`)).rejects.toMatchObject({ status: 500 });
    await expect(say(prompt)).rejects.toMatchObject({ status: 500 });
    expect(await say(prompt)).toBe('At last');
    api.reset();
    await expect(say(prompt)).rejects.toMatchObject({ status: 500 });
  });

  it('of a cut or an error event breaks off the answer', async () => {
    await expect(say('[[cut 1 times=1]]\n[[text a b]]')).rejects.toThrow();
    expect(await say('[[cut 1 times=1]]\n[[text a b]]')).toBe('a b');
    await expect(say('[[error overloaded_error]]')).rejects.toMatchObject({ type: 'overloaded_error' });
  });

  it('of hanging lasts until the client leaves', async () => {
    const hanging = stream('[[hang]]');
    const ended = hanging.done().catch((caught: unknown) => caught);
    await api.waitForRequest(({ prompt }) => prompt === '[[hang]]');
    hanging.abort();
    expect(await ended).toBeInstanceOf(Anthropic.APIUserAbortError);
    await api.waitForRequest(({ outcome }) => outcome === 'client_gone');
  });

  it('of hanging with after=1 times=1 happens to the second request', async () => {
    const prompt = '[[hang after=1 times=1]]\n[[text At last]]';
    expect(await say(prompt)).toBe('At last');
    const hanging = stream(prompt);
    const ended = hanging.done().catch((caught: unknown) => caught);
    await api.waitForRequest(({ outcome }) => outcome === 'pending');
    hanging.abort();
    await ended;
    expect(await say(prompt)).toBe('At last');
  });
});
