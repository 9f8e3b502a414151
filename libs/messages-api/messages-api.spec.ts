import Anthropic from '@anthropic-ai/sdk';
import { errorAnswer, type MessagesApi, startMessagesApi, textAnswer, toolAnswer } from './index.js';

let api: MessagesApi;
let client: Anthropic;

beforeEach(async () => {
  api = await startMessagesApi();
  client = new Anthropic({ baseURL: api.url, apiKey: 'sk-test', maxRetries: 0 });
});
afterEach(() => api.close());

const asking = (content: string) => ({
  model: 'claude-test',
  max_tokens: 100,
  messages: [{ role: 'user' as const, content }],
});

describe('a streamed answer', () => {
  it('has the events of the API, in its order', async () => {
    api.script(() => textAnswer(['Hel', 'lo'], { thinking: ['Hm'] }));
    const events: string[] = [];
    for await (const event of await client.messages.create({ ...asking('hi'), stream: true })) {
      events.push(event.type === 'content_block_delta' ? event.delta.type : event.type);
    }
    expect(events).toEqual([
      'message_start',
      'content_block_start',
      'thinking_delta',
      'signature_delta',
      'content_block_stop',
      'content_block_start',
      'text_delta',
      'text_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
  });

  it('is framed as server-sent events, with a ping that clients skip', async () => {
    api.script(() => textAnswer(['hi']));
    const response = await fetch(`${api.url}/v1/messages?beta=true`, {
      method: 'POST',
      body: JSON.stringify({ ...asking('hi'), stream: true }),
    });
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    const frames = (await response.text()).split('\n\n').slice(0, -1);
    expect(frames[1]).toBe('event: ping\ndata: {"type":"ping"}');
    for (const frame of frames) expect(frame).toMatch(/^event: (\w+)\ndata: \{"type":"\1"[^\n]*\}$/);
  });

  it('adds up to the message that a request without streaming gets', async () => {
    api.script(() =>
      toolAnswer(
        'Write',
        { file_path: 'ä.txt', lines: [1, 2] },
        { id: 'toolu_1', text: 'I write.', thinking: 'Hm.' },
      ),
    );
    const streamed = await client.messages.stream(asking('hi')).finalMessage();
    const whole = await client.messages.create(asking('hi'));
    expect(streamed.content).toEqual(whole.content);
    expect(whole).toMatchObject({
      model: 'claude-test',
      stop_reason: 'tool_use',
      content: [
        { type: 'thinking', thinking: 'Hm.', signature: expect.stringMatching(/.+/) as string },
        { type: 'text', text: 'I write.' },
        { type: 'tool_use', id: 'toolu_1', name: 'Write', input: { file_path: 'ä.txt', lines: [1, 2] } },
      ],
    });
    expect(streamed.stop_reason).toBe('tool_use');
  });

  it('counts the tokens that it is told, and estimates the others', async () => {
    const usage = { inputTokens: 10, outputTokens: 5, cacheReadTokens: 3, cacheCreationTokens: 2 };
    api.script(() => textAnswer('hi', { usage }));
    const told = {
      input_tokens: 10,
      output_tokens: 5,
      cache_read_input_tokens: 3,
      cache_creation_input_tokens: 2,
    };
    expect((await client.messages.stream(asking('hi')).finalMessage()).usage).toMatchObject(told);
    expect((await client.messages.create(asking('hi'))).usage).toMatchObject(told);

    api.script(() => textAnswer('x'.repeat(400)));
    const { usage: estimated } = await client.messages.stream(asking('y'.repeat(4000))).finalMessage();
    expect(estimated).toMatchObject({ output_tokens: 100, cache_read_input_tokens: 0 });
    expect(estimated.input_tokens).toBeGreaterThan(1000);
  });

  it('keeps its pauses: the time of its deltas is at least what was asked for', async () => {
    api.script(() => textAnswer(['a', 'b', 'c'], { delayMs: 30, deltaMs: 20 }));
    const start = performance.now();
    await client.messages.stream(asking('hi')).finalMessage();
    expect(performance.now() - start).toBeGreaterThanOrEqual(30 + 2 * 20 - 3);
  });
});

describe('a script', () => {
  it('is told the turn and the results of the tools it asked for', async () => {
    api.script(({ turn, prompt, lastToolResults, tools }) => {
      if (turn === 0) return toolAnswer('look', { at: 'sky' }, { id: 'toolu_sky' });
      return textAnswer(
        JSON.stringify({ turn, prompt, lastToolResults, offered: tools.map(({ name }) => name) }),
      );
    });
    const tools = [{ name: 'look', input_schema: { type: 'object' as const } }];
    const first = await client.messages.create({ ...asking('what is up?'), tools });
    const second = await client.messages.create({
      ...asking('what is up?'),
      tools,
      messages: [
        ...asking('what is up?').messages,
        { role: 'assistant', content: first.content },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu_sky', content: 'clouds' }] },
      ],
    });
    const [block] = second.content;
    expect(JSON.parse(block?.type === 'text' ? block.text : '')).toEqual({
      turn: 1,
      prompt: 'what is up?',
      lastToolResults: [{ toolUseId: 'toolu_sky', text: 'clouds', isError: false }],
      offered: ['look'],
    });
  });

  it('that throws is answered with a 500 that says so', async () => {
    api.script(() => {
      throw new Error('no idea');
    });
    const refused = client.messages.create(asking('hi'));
    await expect(refused).rejects.toThrow(Anthropic.InternalServerError);
    await expect(refused).rejects.toThrow('The script failed: Error: no idea');
  });

  it('is the one from the start again after a reset, with an empty log', async () => {
    api.script(() => errorAnswer(500));
    await expect(client.messages.create(asking('hi'))).rejects.toThrow(Anthropic.InternalServerError);
    api.reset();
    expect(api.requests).toEqual([]);
    const message = await client.messages.create(asking('[[text Back]]'));
    expect(message.content).toMatchObject([{ type: 'text', text: 'Back' }]);
  });
});

describe('besides messages', () => {
  it('counts tokens', async () => {
    const { input_tokens: few } = await client.messages.countTokens({
      model: 'claude-test',
      messages: [{ role: 'user', content: 'hi' }],
    });
    const { input_tokens: many } = await client.messages.countTokens({
      model: 'claude-test',
      messages: [{ role: 'user', content: 'hi'.repeat(4000) }],
    });
    expect(few).toBeGreaterThan(0);
    expect(many).toBeGreaterThan(few + 1900);
  });

  it.each(['/', '/api/hello'])('answers HEAD %s', async (path) => {
    expect((await fetch(api.url + path, { method: 'HEAD' })).status).toBe(200);
  });

  it.each([
    ['GET', '/v1/messages'],
    ['POST', '/v1/nothing'],
  ])('says of %s %s that it is not found', async (method, path) => {
    const response = await fetch(api.url + path, { method });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ type: 'error', error: { type: 'not_found_error' } });
  });
});

describe('a request that the API would refuse', () => {
  it.each([
    ['malformed JSON', '{"model":', 'The body is not valid JSON.'],
    ['no body', '', 'The body is not valid JSON.'],
    ['no object', '[]', 'The body must be a JSON object.'],
    ['no model', '{}', 'model: Field required'],
    ['no max_tokens', '{"model":"m","messages":[{"role":"user","content":"hi"}]}', /^max_tokens: /],
    ['no messages', '{"model":"m","max_tokens":1,"messages":[]}', /^messages: /],
    ['an unknown role', '{"model":"m","max_tokens":1,"messages":[{"role":"x"}]}', /^messages\.0\.role: /],
    ['no content', '{"model":"m","max_tokens":1,"messages":[{"role":"user"}]}', /^messages\.0\.content: /],
  ])('for %s gets a 400 in its shape', async (_, body, message) => {
    const response = await fetch(`${api.url}/v1/messages`, { method: 'POST', body });
    expect(response.status).toBe(400);
    expect(await response.json()).toEqual({
      type: 'error',
      error: { type: 'invalid_request_error', message: expect.stringMatching(message) as string },
      request_id: response.headers.get('request-id'),
    });
  });

  it('for its size gets a 413', async () => {
    const body = Buffer.alloc(32 * 1024 * 1024 + 1, ' ');
    const response = await fetch(`${api.url}/v1/messages`, { method: 'POST', body });
    expect(response.status).toBe(413);
    expect(await response.json()).toMatchObject({ error: { type: 'request_too_large' } });
  });

  it('for its key gets a 401, if a key is asked for', async () => {
    const strict = await startMessagesApi({ apiKey: 'sk-right' });
    const calling = (options: { apiKey?: string; authToken?: string }) =>
      new Anthropic({ baseURL: strict.url, apiKey: null, maxRetries: 0, ...options }).messages.create(
        asking('hi'),
      );
    try {
      await expect(calling({ apiKey: 'sk-wrong' })).rejects.toThrow(Anthropic.AuthenticationError);
      await expect(calling({ apiKey: 'sk-right' })).resolves.toMatchObject({ type: 'message' });
      await expect(calling({ authToken: 'sk-right' })).resolves.toMatchObject({ type: 'message' });
    } finally {
      await strict.close();
    }
  });
});

describe('starting', () => {
  it('on a port that is taken rejects', async () => {
    await expect(startMessagesApi({ port: api.port })).rejects.toThrow('EADDRINUSE');
  });

  it('on all interfaces names an address that can be connected to', async () => {
    const open = await startMessagesApi({ host: '0.0.0.0' });
    expect(open.url).toBe(`http://127.0.0.1:${open.port}`);
    await open.close();
  });
});
