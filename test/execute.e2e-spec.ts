import { startTestServer, type TestServer } from './support/test-server.js';

describe('POST /api/v1/claude/execute', () => {
  let runner: TestServer;

  beforeAll(async () => {
    runner = await startTestServer();
  });
  afterAll(() => runner.stop());

  it('answers with the process that the real CLI has completed', async () => {
    const { status, headers, body } = await runner.client.execute({
      prompt: 'What is it?\n[[text Forty-two.]]',
    });
    expect(status).toBe(200);
    expect(headers.get('process-status')).toBe('completed');
    expect(body).toMatchObject({
      status: 'completed',
      result: 'Forty-two.',
      stopReason: 'end_turn',
      engine: 'cli',
      demo: false,
    });
  });
});
