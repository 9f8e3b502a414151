import Anthropic from '@anthropic-ai/sdk';
import { type MessagesApi, startMessagesApi } from './index.js';

const KEEP = 3;

let api: MessagesApi;

beforeEach(async () => {
  api = await startMessagesApi({ keepRequests: KEEP });
});
afterEach(() => api.close());

async function ask(prompt: string): Promise<void> {
  const client = new Anthropic({ baseURL: api.url, apiKey: 'sk-mine', maxRetries: 0 });
  const messages = [{ role: 'user' as const, content: prompt }];
  await client.messages.create({ model: 'claude-test', max_tokens: 9, messages });
}

describe('the log of requests', () => {
  it('tells who asked what, of which model, and how it ended', async () => {
    const before = Date.now();
    await ask('hello');
    expect(api.requests).toEqual([
      {
        at: expect.any(Number) as number,
        method: 'POST',
        path: '/v1/messages',
        headers: expect.objectContaining({ host: new URL(api.url).host }) as object,
        purpose: 'turn',
        model: 'claude-test',
        prompt: 'hello',
        body: { model: 'claude-test', max_tokens: 9, messages: [{ role: 'user', content: 'hello' }] },
        apiKey: 'sk-mine',
        outcome: 'answered',
      },
    ]);
    expect(api.requests[0]?.at).toBeGreaterThanOrEqual(before);
  });

  it('keeps the latest, no more than it is told', async () => {
    for (const prompt of ['1', '2', '3', '4', '5']) await ask(prompt);
    expect(api.requests.map(({ prompt }) => prompt)).toEqual(['3', '4', '5']);
  });

  it('lets go of a body once 200 later requests have come', async () => {
    const long = await startMessagesApi();
    for (let count = 0; count <= 200; count++) {
      await fetch(`${long.url}/v1/messages`, { method: 'POST', body: '{}' });
    }
    expect(long.requests.map(({ body }) => body)).toEqual([undefined, ...Array<object>(200).fill({})]);
    await long.close();
  });
});

describe('waiting for a request', () => {
  it('finds one that came before', async () => {
    await ask('early');
    expect(await api.waitForRequest(({ prompt }) => prompt === 'early')).toBe(api.requests[0]);
  });

  it('resolves with one that comes later, whatever comes in between', async () => {
    const waiting = api.waitForRequest(({ prompt }) => prompt === 'late');
    await ask('other');
    await ask('late');
    expect(await waiting).toMatchObject({ prompt: 'late' });
  });

  it('rejects when its time is over', async () => {
    await ask('other');
    await expect(api.waitForRequest(({ prompt }) => prompt === 'never', 1)).rejects.toThrow(
      'No such request within 1 ms; 1 others are in the log.',
    );
  });

  it('rejects when the API is closed', async () => {
    const waiting = api.waitForRequest(() => true);
    await api.close();
    await expect(waiting).rejects.toThrow('closed before such a request came');
  });
});
