import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../messages-api/index.js';
import { CliEngine, type EngineEvent, type EngineRequest } from './index.js';

let api: MessagesApi;
let directory: string;
let engine: CliEngine;
beforeAll(async () => {
  api = await startMessagesApi();
});
afterAll(() => api.close());
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'engine-'));
  engine = new CliEngine({
    directory,
    anthropic: { baseUrl: api.url, apiKey: 'k' },
    apiMaxRetries: 1,
    onNotice: (n) => console.log(JSON.stringify(n)),
  });
});
afterEach(async () => {
  await engine.close();
  await rm(directory, { recursive: true });
});
async function runAll(request: Partial<EngineRequest>) {
  const events: EngineEvent[] = [];
  const t0 = performance.now();
  for await (const e of engine.run(
    { prompt: 'hi', permissionMode: 'deny', timeoutMs: 20000, ...request },
    { signal: new AbortController().signal, workspaceKey: 'w1' },
  )) {
    events.push(e);
    console.log(Math.round(performance.now() - t0), JSON.stringify(e).slice(0, 300));
  }
  return events;
}
it('x', async () => {
  await runAll({ prompt: '[[text Hello there]]' });
  console.log(engine.liveLaunches());
  await runAll({ prompt: '[[status 529]]' });
}, 60000);
