import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DirectoryInUseError, lockDirectory, whileLocked } from './directory-lock.js';
import { identify } from './os-process.js';

describe('the lock on a directory', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'directory-lock-'));
  });

  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  const leaveLock = (text: string) => writeFile(join(directory, 'lock'), text);
  const claimOf = (pid: number, birth: string) =>
    JSON.stringify({ pid, birth, since: new Date(0).toISOString(), token: 'left behind' });

  it('makes the directory if need be', async () => {
    const { release } = await lockDirectory(join(directory, 'a/b'));
    await release();

    expect(await readdir(join(directory, 'a/b'))).toEqual([]);
  });

  it('refuses a second owner and says which process has it and since when', async () => {
    const before = Date.now();
    await lockDirectory(directory);

    const refusal: unknown = await lockDirectory(directory).catch((error: unknown) => error);

    expect(refusal).toBeInstanceOf(DirectoryInUseError);
    const { pid, since, message } = refusal as DirectoryInUseError;
    expect(pid).toBe(process.pid);
    expect(since.getTime()).toBeGreaterThanOrEqual(before);
    expect(message).toContain(`in use by process ${process.pid} since ${since.toISOString()}`);
  });

  it('can be had again once released, and a second release takes it from nobody', async () => {
    const first = await lockDirectory(directory);
    await first.release();
    await lockDirectory(directory);
    await first.release();

    await expect(lockDirectory(directory)).rejects.toThrow(DirectoryInUseError);
  });

  it('is taken over from a process that no longer exists', async () => {
    await leaveLock(claimOf(2 ** 22 + 1, 'long ago'));

    await expect(lockDirectory(directory)).resolves.toBeDefined();
  });

  it('is taken over when another program has the pid of its owner now', async () => {
    await leaveLock(claimOf(process.pid, 'before the last reboot'));

    await expect(lockDirectory(directory)).resolves.toBeDefined();
  });

  it('is respected when the very same process has it', async () => {
    const self = await identify(process.pid);
    await leaveLock(claimOf(process.pid, self!.birth));

    await expect(lockDirectory(directory)).rejects.toThrow(DirectoryInUseError);
  });

  it.each(['', '{"pid":', 'null'])('is taken over when a power cut left %j of it', async (text) => {
    await leaveLock(text);

    await expect(lockDirectory(directory)).resolves.toBeDefined();
  });

  it.each(['a free', 'a stale'])('goes to exactly one of 20 who want %s one at once', async (kind) => {
    if (kind === 'a stale') await leaveLock(claimOf(process.pid, 'before the last reboot'));

    const attempts = await Promise.allSettled(Array.from({ length: 20 }, () => lockDirectory(directory)));

    const refusals = attempts.filter((attempt) => attempt.status === 'rejected');

    expect(refusals).toHaveLength(19);
    expect(refusals.every(({ reason }) => reason instanceof DirectoryInUseError)).toBe(true);
    expect(await readdir(directory)).toEqual(['lock']);
  });

  it('lets tasks under one file run one after the other', async () => {
    let running = 0;
    let most = 0;
    const task = async () => {
      most = Math.max(most, (running += 1));
      await readdir(directory);
      running -= 1;
    };
    await Promise.all(
      Array.from({ length: 5 }, () => whileLocked(join(directory, 'start.lock'), undefined, task)),
    );

    expect(most).toBe(1);
    expect(await readdir(directory)).toEqual([]);
  });
});
