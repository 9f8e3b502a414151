import type { Health } from '../src/claude/claude.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { startTestServer, type TestServer } from './support/test-server.js';

const ON_LIMIT = { maxAttempts: 2, on: ['upstream_rate_limited'] };

describe('a rate limit that names its end', () => {
  let runner: TestServer;
  beforeAll(async () => {
    runner = await startTestServer({ RECONCILER_INTERVAL_MS: '200' });
  });
  afterAll(() => runner.stop());

  it('parks the process until then, and it runs after that', async () => {
    const prompt = 'Limit me\n[[status 429 retry-after=7200 times=1]]\n[[text Done.]]';
    const { id } = await runner.client.submit({ prompt, retry: ON_LIMIT });
    const told = await runner.client.waitForEvent(id, ({ type }) => type === 'retrying');
    const parked = await runner.client.find(id);
    expect(parked).toMatchObject({ status: 'pending', attempt: 2 });
    expect(told).toMatchObject({ attempt: 2, code: 'upstream_rate_limited', retryAt: parked.retryAt });
    const waitMs = Date.parse(parked.retryAt ?? '') - Date.now();
    expect(waitMs).toBeGreaterThan(7_190_000 - 60_000);
    expect(waitMs).toBeLessThanOrEqual(7_200_000);
    await runner.stores.query('UPDATE processes SET retry_at = now() WHERE id = $1', [id]);
    expect(await runner.client.untilEnded(id)).toMatchObject({ status: 'completed', result: 'Done.' });
  });

  it.each([
    ['its caller would wait for its start', { queueTimeoutMs: 60_000 }, 'retry-after=7200'],
    ['anything is parked', {}, 'retry-after=600000'],
  ])('fails the process where that is later than %s, and says when', async (_, request, header) => {
    const prompt = `Limit me for long\n[[status 429 ${header}]]`;
    const { body } = await runner.client.execute({ prompt, retry: ON_LIMIT, ...request });
    expect(body).toMatchObject({ status: 'failed', attempt: 1, error: { code: 'upstream_rate_limited' } });
    expect(body.error?.retryAfterMs).toBeGreaterThan(7_000_000);
  });
});

describe('a Messages API that fails', () => {
  let runner: TestServer;
  beforeAll(async () => {
    runner = await startTestServer({
      ...{ CLAUDE_BREAKER_FAILURES: '2', CLAUDE_API_MAX_RETRIES: '0' },
      ...{ WORKER_CONCURRENCY: '2', RECONCILER_INTERVAL_MS: '200' },
    });
  });
  afterAll(() => runner.stop());

  const health = async () => (await runner.client.request<Health>('GET', '/api/v1/claude/health')).body;
  const untilUpstream = async (is: (state: string | null | undefined) => boolean) => {
    for (;;) {
      const seen = await health();
      if (is(seen.parts?.upstream)) return seen;
    }
  };

  it('is not asked for the processes that wait: one tries it after a while, and then all run', async () => {
    for (const prompt of ['[[status 500]]', '[[status 503]]'])
      expect((await runner.client.execute({ prompt })).body).toMatchObject({
        status: 'failed',
        error: { code: 'upstream_overloaded', retryable: true },
      });
    const asked = runner.messages.requests.length;
    const waiting: Process[] = [];
    // The one that tries takes so long that a worker announces itself meanwhile.
    const promptOf = (name: string) => `Wait ${name}\n[[delay 3000]]\n[[text Done.]]`;
    for (const name of ['one', 'two', 'three'])
      waiting.push(await runner.client.submit({ prompt: promptOf(name) }));
    const cancelled = waiting.pop();
    expect((await runner.client.cancel(cancelled?.id ?? '')).body.status).toBe('cancelled');
    const seen = await untilUpstream((state) => state !== 'closed');
    expect(seen).toMatchObject({ status: 'degraded' });
    expect(seen.parts?.problems.join()).toMatch(/The Messages API fails/);
    const ended = await Promise.all(waiting.map(({ id }) => runner.client.untilEnded(id)));
    for (const process of ended) {
      expect(process).toMatchObject({ status: 'completed', result: 'Done.', attempt: 1 });
      expect(process.queueWaitMs).toBeGreaterThan(1_000);
    }
    const prompts = runner.messages.requests.slice(asked).map(({ prompt }) => prompt);
    expect(prompts).toContain(promptOf('two'));
    expect(prompts).not.toContain(promptOf('three'));
    await untilUpstream((state) => state === 'closed');
  });
});
