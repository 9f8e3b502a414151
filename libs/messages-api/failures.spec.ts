import Anthropic from '@anthropic-ai/sdk';
import { request as httpRequest } from 'node:http';
import {
  cutAfter,
  errorAfter,
  errorAnswer,
  hangAnswer,
  type MessagesApi,
  startMessagesApi,
  textAnswer,
} from './index.js';

const MINUTE_MS = 60_000;

let api: MessagesApi;
let client: Anthropic;

beforeEach(async () => {
  api = await startMessagesApi();
  client = new Anthropic({ baseURL: api.url, apiKey: 'sk-test', maxRetries: 0 });
});
afterEach(() => api.close());

const hello = {
  model: 'claude-test',
  max_tokens: 100,
  messages: [{ role: 'user' as const, content: 'hi' }],
};

/** Reads a stream to wherever it ends. */
async function textsOf(stream: AsyncIterable<Anthropic.MessageStreamEvent>, texts: string[]): Promise<void> {
  for await (const event of stream) {
    if (event.type === 'content_block_delta' && event.delta.type === 'text_delta')
      texts.push(event.delta.text);
  }
}

describe('an HTTP error', () => {
  it.each([
    [400, 'invalid_request_error', Anthropic.BadRequestError],
    [401, 'authentication_error', Anthropic.AuthenticationError],
    [402, 'billing_error', Anthropic.APIError],
    [403, 'permission_error', Anthropic.PermissionDeniedError],
    [404, 'not_found_error', Anthropic.NotFoundError],
    [409, 'conflict_error', Anthropic.ConflictError],
    [413, 'request_too_large', Anthropic.APIError],
    [418, 'invalid_request_error', Anthropic.APIError],
    [429, 'rate_limit_error', Anthropic.RateLimitError],
    [500, 'api_error', Anthropic.InternalServerError],
    [503, 'api_error', Anthropic.InternalServerError],
    [504, 'timeout_error', Anthropic.InternalServerError],
    [529, 'overloaded_error', Anthropic.InternalServerError],
  ])('of status %i is a %s, and what the SDK expects of it', async (status, type, errorClass) => {
    api.script(() => errorAnswer(status, { message: 'As scripted.' }));
    const error: unknown = await client.messages
      .stream(hello)
      .finalMessage()
      .catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(errorClass);
    expect(error).toMatchObject({ status, type, apiMessage: 'As scripted.' });
    expect(api.requests[0]?.outcome).toBe('failed');
  });

  it.each([
    [{}, '1'],
    [{ retryAfterS: 7 }, '7'],
  ])('of status 429 with %j says retry-after: %s', async (options, seconds) => {
    api.script(() => errorAnswer(429, options));
    const response = await fetch(`${api.url}/v1/messages`, { method: 'POST', body: JSON.stringify(hello) });
    expect(response.headers.get('retry-after')).toBe(seconds);
  });
});

describe('an answer that breaks off', () => {
  it('by a cut has sent exactly the deltas before it', async () => {
    api.script(() => cutAfter(2, textAnswer(['a', 'b', 'c'])));
    const texts: string[] = [];
    const stream = await client.messages.create({ ...hello, stream: true });
    await expect(textsOf(stream, texts)).rejects.toThrow();
    expect(texts).toEqual(['a', 'b']);
    expect(api.requests[0]?.outcome).toBe('cut');
  });

  it('is cut before its end even if it has fewer deltas', async () => {
    api.script(() => cutAfter(9, textAnswer(['a'])));
    await expect(client.messages.stream(hello).finalMessage()).rejects.toThrow();
  });

  it('by a cut is no message without streaming either', async () => {
    api.script(() => cutAfter(1, textAnswer(['a', 'b'])));
    await expect(client.messages.create(hello)).rejects.toThrow();
    expect(api.requests[0]?.outcome).toBe('cut');
  });

  it('by an error event is an error of that type in the SDK', async () => {
    api.script(() => errorAfter(1, 'overloaded_error', textAnswer(['a', 'b'])));
    const texts: string[] = [];
    const stream = await client.messages.create({ ...hello, stream: true });
    await expect(textsOf(stream, texts)).rejects.toMatchObject({ type: 'overloaded_error' });
    expect(texts).toEqual(['a']);
    expect(api.requests[0]?.outcome).toBe('failed');
  });

  it('by an error event is an HTTP error without streaming', async () => {
    api.script(() => errorAfter(1, 'overloaded_error', textAnswer(['a', 'b'])));
    await expect(client.messages.create(hello)).rejects.toMatchObject({
      status: 529,
      type: 'overloaded_error',
    });
  });
});

describe('a client that leaves', () => {
  const scripts = {
    'before the first delta': () => textAnswer('late', { delayMs: 10 * MINUTE_MS }),
    'between two deltas': () => textAnswer(['a', 'b'], { deltaMs: 10 * MINUTE_MS }),
    'while it hangs': () => hangAnswer(),
    'while its script thinks': () => new Promise<never>(() => undefined),
  };

  it.each(Object.entries(scripts))('%s leaves no timer behind', async (_, script) => {
    api.script(script);
    const timers = activeTimers();
    const leaving = httpRequest(`${api.url}/v1/messages`, { method: 'POST', agent: false });
    leaving.on('error', () => undefined);
    leaving.end(JSON.stringify({ ...hello, stream: true }));
    await api.waitForRequest(({ outcome }) => outcome === 'pending');
    leaving.destroy();
    await api.waitForRequest(({ outcome }) => outcome === 'client_gone');
    // Others may begin and end timers of their own meanwhile; what was left behind here would stay for minutes.
    while (activeTimers() > timers) await new Promise((resolve) => setImmediate(resolve));
    expect(activeTimers()).toBeLessThanOrEqual(timers);
  });

  it('aborts the signal of the script', async () => {
    const aborted = new Promise<string>((resolve) => {
      api.script(({ signal }) => {
        signal.addEventListener('abort', () => resolve('aborted'));
        return hangAnswer();
      });
    });
    const stream = client.messages.stream(hello);
    const ended = stream.done().catch((caught: unknown) => caught);
    await api.waitForRequest(() => true);
    stream.abort();
    expect(await aborted).toBe('aborted');
    expect(await ended).toBeInstanceOf(Anthropic.APIUserAbortError);
  });

  it('in the middle of its request is not logged', async () => {
    const leaving = httpRequest(`${api.url}/v1/messages`, {
      method: 'POST',
      agent: false,
      headers: { 'content-length': 100 },
    });
    leaving.on('error', () => undefined);
    await new Promise((resolve) => leaving.write('{', resolve));
    leaving.destroy();
    await client.messages.create(hello);
    expect(api.requests.map(({ outcome }) => outcome)).toEqual(['answered']);
  });
});

describe('closing', () => {
  it('breaks off what is under way, and is over at once', async () => {
    api.script(() => hangAnswer());
    const hanging = client.messages.create(hello).catch((caught: unknown) => caught);
    const request = await api.waitForRequest(() => true);
    await api.close();
    expect(await hanging).toBeInstanceOf(Anthropic.APIConnectionError);
    expect(request.outcome).toBe('cut');
  });

  it('twice does no harm', async () => {
    await api.close();
    await expect(api.close()).resolves.toBeUndefined();
  });
});

function activeTimers(): number {
  return process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length;
}
