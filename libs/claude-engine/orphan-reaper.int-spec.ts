import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, realpath, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../messages-api/index.js';
import { writeLaunchRecord } from './launch-record.js';
import { CliEngine } from './index.js';
import { reapOrphans } from './orphan-reaper.js';
import { identifyProcess, isAlive, LAUNCH_MARK, processesOf, thisPlace } from './process-table.js';
import { eventually, NO_SANDBOX, startWorker } from './test-support.js';

let root: string;
const children: ChildProcess[] = [];
beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'reaper-')));
});
afterEach(async () => {
  // Until it is gone it would be found by its mark, by the next test as well.
  for (const child of children.splice(0)) {
    const gone = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : null;
    child.kill('SIGKILL');
    await gone;
  }
  await rm(root, { recursive: true, force: true, maxRetries: 5 });
});

/** A process that stands for a CLI or its owner. */
function sleeper(env: Record<string, string> = {}): number {
  const child = spawn('/bin/sleep', ['600'], { detached: true, stdio: 'ignore', env });
  children.push(child);
  return child.pid!;
}

async function launch(
  id: string,
  record: { ownerPid: number; ownerStart?: string; host?: string; epoch?: string },
) {
  const folder = join(root, id);
  await mkdir(folder, { recursive: true });
  const pid = sleeper({ [LAUNCH_MARK]: id });
  const { host, epoch } = { ...thisPlace(), ...record };
  const startTime = record.ownerStart ?? identifyProcess(record.ownerPid)?.startTime ?? null;
  const owner = { pid: record.ownerPid, startTime };
  writeLaunchRecord(folder, { id, host, epoch, owner, cli: identifyProcess(pid) });
  return identifyProcess(pid)!;
}

describe('the reaper', () => {
  it('kills the CLI of a dead owner, what it started, and their folder', async () => {
    const cli = await launch('l1', { ownerPid: process.pid, ownerStart: '1' });
    const child = sleeper({ [LAUNCH_MARK]: 'l1' });
    expect(await reapOrphans(root)).toEqual([
      { launchId: 'l1', pids: expect.arrayContaining([cli.pid, child]) as number[] },
    ]);
    expect(isAlive(cli)).toBe(false);
    expect(await readdir(root)).toEqual([]);
  });

  it('leaves alone what has a living owner', async () => {
    const cli = await launch('l1', { ownerPid: process.pid });
    expect(await reapOrphans(root)).toEqual([]);
    expect(isAlive(cli)).toBe(true);
    expect(await readdir(root)).toEqual(['l1']);
  });

  it('leaves alone what another host left', async () => {
    const cli = await launch('l1', { ownerPid: process.pid, ownerStart: '1', host: 'another-host' });
    expect(await reapOrphans(root)).toEqual([]);
    expect(isAlive(cli)).toBe(true);
  });

  it('never kills a process that only has the pid of a CLI from before a restart', async () => {
    const stranger = sleeper();
    await mkdir(join(root, 'l1'));
    const owner = { pid: process.pid, startTime: '1' };
    const cli = { pid: stranger, startTime: '1' };
    writeLaunchRecord(join(root, 'l1'), { id: 'l1', ...thisPlace(), owner, cli });
    expect(await reapOrphans(root)).toEqual([{ launchId: 'l1', pids: [] }]);
    expect(identifyProcess(stranger)).not.toBeNull();
  });

  it('removes what is left from before a reboot', async () => {
    const cli = await launch('l1', { ownerPid: process.pid, epoch: 'another boot' });
    expect(await reapOrphans(root)).toEqual([{ launchId: 'l1', pids: [] }]);
    expect(isAlive(cli)).toBe(true);
    expect(await readdir(root)).toEqual([]);
  });

  it('removes a folder without a record only when it is old', async () => {
    await mkdir(join(root, 'young'));
    await mkdir(join(root, 'old'));
    await utimes(join(root, 'old'), 0, 0);
    await writeFile(join(root, 'young', 'launch.json'), '{');
    await reapOrphans(root);
    expect(await readdir(root)).toEqual(['young']);
  });

  it('has nothing to do where nothing was', async () => {
    expect(await reapOrphans(join(root, 'missing'))).toEqual([]);
  });
});

describe('a server that was killed', () => {
  let api: MessagesApi;
  beforeEach(async () => {
    api = await startMessagesApi();
  });
  afterEach(() => api.close());

  it('leaves a CLI that the next one ends', async () => {
    const directory = join(root, 'data');
    // In a sandbox it would end with its owner.
    const worker = await startWorker({ directory, baseUrl: api.url, sandbox: NO_SANDBOX });
    // Frozen, it cannot notice that its owner is gone.
    process.kill(worker.cliPid, 'SIGSTOP');
    await worker.kill('SIGKILL');
    expect(identifyProcess(worker.cliPid)).not.toBeNull();

    const next = await CliEngine.open({ directory, anthropic: { baseUrl: api.url, apiKey: 'k' } });
    const launch = { id: worker.launchId, groupId: worker.cliPid };
    await eventually(async () => (await processesOf(launch)).length === 0);
    await next.close();
    expect(await readdir(join(directory, 'launches'))).toEqual([]);
  });
});
