import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { eventually } from '../libs/claude-engine/test-support.js';
import type { Metrics } from '../src/metrics/metrics.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { ApiClient } from './support/api-client.js';
import { type Started, startProgram } from './support/started.js';
import { removeLeft } from './support/left-directory.js';

const run = promisify(execFile);

/** What a newcomer does: `npm start` on a checkout, with nothing in the environment but where the data goes. */
/** It may install and build first. */
const FIRST_START_MS = 5 * 60_000;

describe('npm start', () => {
  const directory = mkdtempSync(join(tmpdir(), 'claude runner start ')); // a path that needs quoting
  const start = () =>
    startProgram(['scripts/start.mjs'], { DATA_DIR: directory, PORT: '0', LOG_LEVEL: 'warn' });
  let runner: Started;

  const addressOf = async (started: Started) =>
    (await started.line(/Claude Runner +http/)).trim().split(/ +/)[2] ?? '';
  const storePids = () => ({
    postgres: Number(readFileSync(join(directory, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0]),
  });
  // What an init that reaps nobody leaves behind of a process is not alive.
  const isAlive = (pid: number) =>
    existsSync(`/proc/${pid}/stat`) && !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');

  beforeAll(async () => {
    runner = start();
    await runner.line(/curl -s/);
  }, FIRST_START_MS);
  afterAll(async () => {
    runner.kill('SIGINT');
    await runner.exited;
    await removeLeft(directory);
  });

  it('says where everything is, and that it is demo mode', async () => {
    const said = runner.lines.join('\n');
    expect(said).toMatch(/Swagger UI +http.*\/docs/);
    expect(said).toContain(join(directory, 'api-key'));
    expect(said).toContain('admin@claude-runner.local');
    expect(said).toContain(join(directory, 'admin-password'));
    expect(said).toContain('DEMO MODE');
    expect((await fetch(`${await addressOf(runner)}/docs`)).status).toBe(200);
  });

  it('prints a line that answers a completed process when it is pasted', async () => {
    const { stdout } = await run('bash', ['-c', await runner.line(/curl -s/)]);
    expect(JSON.parse(stdout)).toMatchObject({
      status: 'completed',
      demo: true,
      engine: 'cli',
    } satisfies Partial<Process>);
  });

  it('keeps its secrets to their owner, and they work', async () => {
    for (const name of ['api-key', 'admin-password'])
      expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
    const password = readFileSync(join(directory, 'admin-password'), 'utf8').trim();
    const administrator = await ApiClient.login(
      await addressOf(runner),
      'admin@claude-runner.local',
      password,
    );
    const figures = async () =>
      (await administrator.request<Metrics>('GET', '/api/v1/claude/metrics?scope=all&window=24h')).body;
    // What was announced while a process ran says so until it is announced anew.
    await eventually(async () => (await figures()).slots?.busy === 0);
    const body = await figures();
    expect(body.slots).toEqual({ total: 2, busy: 0 });
    // Demo runs do not count.
    expect(body.counts.completed).toBe(0);
    const health = await administrator.request('GET', '/api/v1/claude/health');
    expect(health.body).toMatchObject({
      status: 'ok',
      parts: { demo: true, containment: [process.platform === 'linux' ? 'bwrap' : 'file-tools'] },
    });
  });

  it('on a data directory that is in use says by whom, and ends', async () => {
    const second = start();
    expect(await second.exited).toMatchObject({ code: 1 });
    expect(second.lines.join('\n')).toContain(`in use by process ${runner.pid}`);
  });

  it('after a kill -9 takes over what was left, with its data', async () => {
    const client = async () =>
      new ApiClient(await addressOf(runner), readFileSync(join(directory, 'api-key'), 'utf8').trim());
    const { body: before } = await (await client()).execute({ prompt: 'Before\n[[text It was before.]]' });
    const { postgres } = storePids();
    runner.kill('SIGKILL');
    await runner.exited;
    expect(isAlive(postgres)).toBe(true);

    runner = start();
    await runner.line(/curl -s/);
    expect(storePids().postgres).toBe(postgres);
    expect(await (await client()).find(before.id)).toEqual(before);
    expect((await (await client()).execute({ prompt: 'After\n[[text It was after.]]' })).body.result).toBe(
      'It was after.',
    );
  });

  it('ends everything that it started when it is interrupted, and starts again', async () => {
    const { postgres } = storePids();
    runner.kill('SIGINT');
    expect(await runner.exited).toEqual({ code: 0, signal: null });
    expect(isAlive(postgres)).toBe(false);
    expect(runner.lines.at(-1)).toContain('Stopped');

    runner = start();
    await runner.line(/curl -s/);
  });
});
