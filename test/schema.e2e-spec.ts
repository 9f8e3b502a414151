import { randomUUID } from 'node:crypto';
import { startTestServer, type TestServer } from './support/test-server.js';

const SCHEMA = {
  type: 'object',
  properties: { reasoning: { type: 'string' }, answer: { type: 'integer' } },
  required: ['answer'],
  additionalProperties: false,
};
const output = (value: unknown) => `[[tool StructuredOutput ${JSON.stringify(value)}]]`;

describe('what a request may ask of its answer', () => {
  let runner: TestServer;
  beforeAll(async () => {
    runner = await startTestServer({
      CLAUDE_TOOLS: 'Read,Glob,Bash',
      CLAUDE_MODELS: 'claude-sonnet-5-5,claude-opus-5-5',
      CLAUDE_SANDBOX: 'off',
    });
  });
  afterAll(() => runner.stop());

  it('is an object by a schema: the process has it parsed, and so have its events, its list not', async () => {
    const value = { reasoning: 'Counted twice, with care ✓', answer: 42 };
    const { body } = await runner.client.execute({ prompt: output(value), outputSchema: SCHEMA });
    expect(body).toMatchObject({
      status: 'completed',
      structuredResult: value,
      result: JSON.stringify(value),
    });
    expect(await runner.client.find(body.id)).toEqual(body);
    const { items } = await runner.client.events(body.id, '?limit=1000');
    expect(items.at(-1)).toMatchObject({ type: 'completed', process: { structuredResult: value } });
    const [shown] = runner.messages.requests.filter(({ purpose }) => purpose === 'turn');
    // The fields in the caller's order, which is the one in which a model thinks.
    expect(JSON.stringify(shown?.body)).toContain('"properties":{"reasoning":{');
    const list = await runner.client.request<{ items: object[] }>('GET', '/api/v1/claude/processes');
    expect(list.body.items[0]).not.toHaveProperty('structuredResult');
    const deleted = await runner.client.request('DELETE', `/api/v1/claude/processes/${body.id}/content`);
    expect(deleted.body).toMatchObject({ structuredResult: null, result: null });
  });

  it('fails the process with output_schema_mismatch where the answer is none, and can be read as a conversation', async () => {
    const { body } = await runner.client.execute({ prompt: '[[text Forty-two]]', outputSchema: SCHEMA });
    expect(body).toMatchObject({
      status: 'failed',
      structuredResult: null,
      error: { code: 'output_schema_mismatch', retryable: false },
    });
    const { body: page } = await runner.client.request<{ items: { content: { text?: string }[] }[] }>(
      'GET',
      `/api/v1/claude/sessions/${body.sessionId}/messages`,
    );
    const said = page.items.flatMap(({ content }) => content.map(({ text }) => text));
    expect(said).toEqual(['[[text Forty-two]]', 'Forty-two', 'Forty-two']);
  });

  it('is within a budget: what passes it fails with run_budget_reached', async () => {
    const prompt = 'Spend\n[[usage in=1000000 out=10]]\n[[tool Glob {"pattern":"*"}]]';
    const { body } = await runner.client.execute({ prompt, maxBudgetUsd: 0.5 });
    expect(body).toMatchObject({
      status: 'failed',
      stopReason: 'run_budget_reached',
      error: { code: 'run_budget_reached' },
    });
    expect(body.costUsd).toBeGreaterThan(0.5);
  });

  it.each([
    ['a type that there is not', { type: 'object', properties: { a: { type: 'whole' } } }, /type/],
    ['a reference to somewhere else', { type: 'object', $ref: 'https://example.com/x' }, /reference/],
    ['another dialect', { type: 'object', $schema: 'urn:mine' }, /2020-12 or draft-07/],
  ])('is no schema: %s', async (_, outputSchema, detail) => {
    const before = await runner.stores.query('SELECT id FROM processes');
    const { status, body } = await runner.client.request('POST', '/api/v1/claude/execute', {
      prompt: 'x',
      outputSchema,
    });
    expect([status, body.code]).toEqual([422, 'output_schema_invalid']);
    expect(body.detail).toMatch(detail);
    expect(body.errors).toMatchObject([{ pointer: '/outputSchema', code: 'output_schema_invalid' }]);
    expect(await runner.stores.query('SELECT id FROM processes')).toEqual(before);
  });

  it.each([
    ['a tool that the operator does not offer', { tools: ['Write'] }, '/tools/0', 'tool_not_allowed'],
    ['the same, allowed', { allowedTools: ['Read', 'Edit'] }, '/allowedTools/1', 'tool_not_allowed'],
    ['a tool that no sandbox of the workers contains', { tools: ['Bash'] }, '/tools/0', 'tool_not_allowed'],
    [
      'a model that the operator does not offer',
      { model: 'claude-haiku-5-5' },
      '/model',
      'model_not_allowed',
    ],
    ['its alias', { model: 'haiku' }, '/model', 'model_not_allowed'],
  ])('is not to be had: %s', async (_, request, pointer, code) => {
    const { status, body } = await runner.client.request('POST', '/api/v1/claude/execute', {
      prompt: randomUUID(),
      ...request,
    });
    expect([status, body.code, body.errors[0]?.pointer]).toEqual([422, code, pointer]);
  });

  it('is a model that the operator offers, by name or alias', async () => {
    const { body } = await runner.client.execute({ prompt: '[[text Yes]]', model: 'sonnet' });
    expect(body).toMatchObject({ status: 'completed', model: 'claude-sonnet-5-5' });
  });
});
