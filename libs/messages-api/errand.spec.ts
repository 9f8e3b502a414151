import Anthropic from '@anthropic-ai/sdk';
import { errorAnswer, type MessagesApi, startMessagesApi } from './index.js';

let api: MessagesApi;

beforeAll(async () => {
  // A script that fails whatever reaches it.
  api = await startMessagesApi({ script: () => errorAnswer(418) });
});
beforeEach(() => api.reset());
afterAll(() => api.close());

const title = {
  max_tokens: 32_000,
  output_config: {
    format: {
      type: 'json_schema' as const,
      schema: { type: 'object', properties: { title: { type: 'string' } }, required: ['title'] },
    },
  },
  messages: [{ role: 'user' as const, content: '<session>\n[[status 529]]\n</session>\n\nWrite the title.' }],
};
const probe = { max_tokens: 1, messages: [{ role: 'user' as const, content: 'Hi' }] };
const compaction = {
  max_tokens: 32_000,
  messages: [
    { role: 'user' as const, content: '[[status 529]]' },
    { role: 'assistant' as const, content: 'hi' },
    {
      role: 'user' as const,
      content: [
        { type: 'text' as const, text: 'CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n\n…' },
      ],
    },
  ],
};

function ask(body: typeof title | typeof probe | typeof compaction, userAgent: string) {
  const client = new Anthropic({ baseURL: api.url, apiKey: 'sk', maxRetries: 0 });
  const headers = { 'user-agent': userAgent };
  return client.messages.stream({ model: 'claude-test', ...body }, { headers }).finalMessage();
}

const CASES = [
  ['probe', probe, 'Hi'],
  ['title', title, '{"title":"Scripted session"}'],
  ['compaction', compaction, '<summary>\nA scripted conversation took place.\n</summary>'],
] as const;

describe.each(CASES)('an errand of the CLI: %s', (purpose, body, text) => {
  it('is answered without the script, and logged as nobody’s prompt', async () => {
    const message = await ask(body, 'claude-cli/2.1.330 (external, sdk-cli)');
    expect(message.content).toMatchObject([{ type: 'text', text }]);
    expect(api.requests).toMatchObject([{ purpose, prompt: null, outcome: 'answered' }]);
  });

  it('is a turn of the conversation if another client sends it', async () => {
    await expect(ask(body, 'curl/8')).rejects.toMatchObject({ status: 418 });
    expect(api.requests).toMatchObject([{ purpose: 'turn' }]);
  });
});
