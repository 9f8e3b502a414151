import type { Health } from '../src/claude/claude.schemas.js';
import { startTestServer, type TestServer } from './support/test-server.js';

describe('a worker without a CLI', () => {
  let runner: TestServer;
  beforeAll(async () => {
    runner = await startTestServer({ CLAUDE_CLI_PATH: '/nonexistent/claude', CLAUDE_SANDBOX: 'off' });
  });
  afterAll(() => runner.stop());

  it('answers by the Messages API what needs no tools, says so, and goes on with it', async () => {
    const { body } = await runner.client.execute({ prompt: 'One\n[[text Uno]]\n[[usage in=100 out=10]]' });
    expect(body).toMatchObject({
      ...{ status: 'completed', result: 'Uno', engine: 'api', model: 'claude-opus-5-5', cliVersion: null },
      ...{
        stopReason: 'end_turn',
        numTurns: 1,
        usage: { inputTokens: 100, outputTokens: 10 },
        costUsd: 0.0006,
      },
    });
    const { items } = await runner.client.events(body.id);
    expect(items.map(({ type }) => type)).toEqual([
      ...['created', 'queued', 'started', 'text', 'message', 'usage', 'completed'],
    ]);
    expect(items[2]).toMatchObject({ type: 'started', engine: 'api' });
    const { sessionId } = body;
    const next = await runner.client.execute({ prompt: 'Two\n[[text Dos]]', sessionId });
    expect(next.body).toMatchObject({ status: 'completed', result: 'Dos', sessionId });
    const [, asked] = runner.messages.requests.filter(({ purpose }) => purpose === 'turn');
    expect(JSON.stringify(asked?.body)).toMatch(/One.*Uno.*Two/s);
    const path = `/api/v1/claude/sessions/${sessionId}/messages`;
    const said = await runner.client.request<{ items: { role: string; processId: string }[] }>('GET', path);
    expect(said.body.items.map(({ role }) => role)).toEqual(['user', 'assistant', 'user', 'assistant']);
    expect(said.body.items[0]?.processId).toBe(body.id);
  });

  it.each([
    ['wants the CLI', { engine: 'cli' }],
    ['names a tool', { tools: ['Read'] }],
    ['lets edits through', { permissionMode: 'acceptEdits' }],
    ['wants the API, and a tool', { engine: 'api', tools: ['Read'] }],
  ])('answers nothing where the request %s', async (_, request) => {
    const before = runner.messages.requests.length;
    const { body } = await runner.client.execute({ prompt: '[[text Hi]]', ...request });
    expect(body).toMatchObject({ status: 'failed', error: { code: 'engine_unavailable' } });
    expect(runner.messages.requests).toHaveLength(before);
  });

  it('is degraded, and health says that the API stands in', async () => {
    const { body } = await runner.client.request<Health>('GET', '/api/v1/claude/health');
    expect(body).toMatchObject({ status: 'degraded', parts: { apiFallback: true, upstream: 'closed' } });
    expect(body.parts?.problems.join()).toMatch(/no Claude CLI.*Messages API answers/);
  });
});
