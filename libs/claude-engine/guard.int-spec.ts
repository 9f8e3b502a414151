import { mkdtemp, readdir, readFile, readlink, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../messages-api/index.js';
import { type Ending, type EngineNotice } from './index.js';
import { processesOf } from './process-table.js';
import {
  EngineBench,
  eventually,
  NO_SANDBOX,
  SANDBOX,
  startWorker,
  type WorkerProcess,
} from './test-support.js';

const SILENCE_MS = 5000;

let api: MessagesApi;
let directory: string;
const workers: WorkerProcess[] = [];
beforeAll(async () => {
  api = await startMessagesApi();
});
beforeEach(async () => {
  directory = await realpath(await mkdtemp(join(tmpdir(), 'guard-')));
});
afterEach(async () => {
  await Promise.all(workers.map((worker) => worker.kill('SIGKILL')));
  for (const worker of workers.splice(0)) await eventually(() => isGone(worker));
  await eventually(async () => (await guardsOf(directory)).length === 0);
  await rm(directory, { recursive: true, force: true, maxRetries: 5 });
});
afterAll(() => api.close());

async function guardedWorker(silenceMs = SILENCE_MS, sandbox = SANDBOX): Promise<WorkerProcess> {
  const worker = await startWorker({ directory, baseUrl: api.url, guard: { silenceMs }, sandbox });
  workers.push(worker);
  return worker;
}

const isGone = async ({ launchId, cliPid }: WorkerProcess) =>
  (await processesOf({ id: launchId, groupId: cliPid })).length === 0;
const launchesLeft = () => readdir(join(directory, 'launches'));

/** The guards of engines in a folder, as the process table knows them. */
async function guardsOf(folder: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const commands = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  const isGuard = (command = '') => command.includes('guard-program.js') && command.includes(folder);
  return pids.filter((_, index) => isGuard(commands[index])).map(Number);
}

/** Pipes and sockets that a process holds. */
async function channelsOf(pid: number): Promise<string[]> {
  const names = await readdir(`/proc/${pid}/fd`);
  const links = await Promise.all(names.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
  return links.filter((link) => /^(pipe|socket):/.test(link));
}

describe('a worker that was killed', () => {
  it('is outlived by its guard, which kills its CLI at once and removes its launch', async () => {
    // Frozen and in no sandbox, the CLI cannot notice by itself; and with so much patience, it was no silence.
    const worker = await guardedWorker(600_000, NO_SANDBOX);
    process.kill(worker.cliPid, 'SIGSTOP');
    const began = performance.now();
    await worker.kill('SIGKILL');
    await eventually(() => isGone(worker));
    expect(performance.now() - began).toBeLessThan(5000);
    await eventually(async () => (await launchesLeft()).length === 0);
    await eventually(async () => (await guardsOf(directory)).length === 0);
  });
});

describe('a worker that falls silent', () => {
  it('loses its CLI to its guard, another worker does not; and is guarded on', async () => {
    const [worker, other] = [await guardedWorker(), await guardedWorker(600_000)];
    process.kill(worker.pid, 'SIGSTOP');
    const began = performance.now();
    await eventually(() => isGone(worker));
    expect(performance.now() - began).toBeGreaterThan(SILENCE_MS / 2);
    expect(performance.now() - began).toBeLessThan(SILENCE_MS + 5000);
    expect(await isGone(other)).toBe(false);
    expect(await launchesLeft()).toHaveLength(2);

    process.kill(worker.pid, 'SIGCONT');
    const notice = JSON.parse(await worker.nextLine()) as EngineNotice;
    expect(notice).toEqual({ kind: 'guard_struck', launchIds: [worker.launchId] });
    const { ending } = JSON.parse(await worker.nextLine()) as { ending: Ending };
    expect(ending).toMatchObject({ kind: 'failed', error: { code: 'engine_unavailable', retryable: true } });
    expect(await guardsOf(directory)).toHaveLength(2);
  });
});

describe('the guard', () => {
  it('stands apart: no channel of its worker is its own, and signals to a service do not end it', async () => {
    const worker = await guardedWorker();
    const [guard] = await guardsOf(directory);
    const itsOwn = await channelsOf(guard!);
    expect(itsOwn).not.toEqual([]);
    // What this test was started with, everybody below it has.
    const inherited = await channelsOf(process.pid);
    const shared = (await channelsOf(worker.pid)).filter((channel) => itsOwn.includes(channel));
    expect(shared.filter((channel) => !inherited.includes(channel))).toEqual([]);
    expect(await readFile(`/proc/${guard!}/environ`, 'utf8')).toBe('');
    for (const signal of ['SIGINT', 'SIGHUP', 'SIGTERM'] as const) process.kill(guard!, signal);
    await worker.kill('SIGKILL');
    await eventually(() => isGone(worker));
  });

  it('ends with its engine', async () => {
    const bench = await EngineBench.open({ guard: { silenceMs: SILENCE_MS } });
    await bench.run({});
    expect(await guardsOf(bench.directory)).toHaveLength(1);
    await bench.close();
    expect(await guardsOf(bench.directory)).toEqual([]);
    expect(bench.notices.filter(({ kind }) => kind.startsWith('guard'))).toEqual([]);
  });

  it('is replaced when it dies, and the operator is told', async () => {
    const bench = await EngineBench.open({ guard: { silenceMs: SILENCE_MS } });
    await eventually(async () => (await guardsOf(bench.directory)).length === 1);
    const [first] = await guardsOf(bench.directory);
    bench.engine.heartbeat();
    process.kill(first!, 'SIGKILL');
    await eventually(() => bench.notices.some(({ kind }) => kind === 'guard_lost'));
    await eventually(async () => {
      const guards = await guardsOf(bench.directory);
      return guards.length === 1 && guards[0] !== first;
    });
    // The new one knows that the old one was being talked to.
    const run = bench.begin({ prompt: '[[hang]]' });
    expect(await run.ending()).toMatchObject({ kind: 'failed', error: { code: 'engine_unavailable' } });
    await bench.close();
  });
});
