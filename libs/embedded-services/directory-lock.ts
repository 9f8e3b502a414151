import { createHash, randomUUID } from 'node:crypto';
import { link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import { errorCode, identify, isRunning } from './os-process.js';

const RETRY_MS = 10;

const LockHolderSchema = z.object({
  pid: z.int().positive(),
  birth: z.string(),
  since: z.iso.datetime(),
  /** Makes every claim's text unique, two by one process in one millisecond too. */
  token: z.string(),
});
type LockHolder = z.infer<typeof LockHolderSchema>;

type LockAttempt = { acquired: true; release: () => Promise<void> } | { acquired: false; holder: LockHolder };

export class DirectoryInUseError extends Error {
  override readonly name = 'DirectoryInUseError';

  constructor(
    readonly directory: string,
    /** The living process that has the directory. */
    readonly pid: number,
    readonly since: Date,
  ) {
    super(
      `${directory} is in use by process ${pid} since ${since.toISOString()}. ` +
        'Stop that process, or choose another directory.',
    );
  }
}

/**
 * Makes this process the one owner of a directory (made if need be) until `release()` or the end of the process, a
 * kill -9 included. It holds among processes that see each other's pids; not between containers that share a volume.
 * @throws DirectoryInUseError when a living process, this one included, has it.
 */
export async function lockDirectory(directory: string): Promise<{ release(): Promise<void> }> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const attempt = await tryLock(join(directory, 'lock'));
  if (attempt.acquired) return { release: attempt.release };
  throw new DirectoryInUseError(directory, attempt.holder.pid, new Date(attempt.holder.since));
}

/** Runs a task when no other process (and no other call in this one) is running one under the same file. */
export async function whileLocked<T>(
  file: string,
  signal: AbortSignal | undefined,
  task: () => Promise<T>,
): Promise<T> {
  for (;;) {
    signal?.throwIfAborted();
    const attempt = await tryLock(file);
    if (!attempt.acquired) {
      await pause(RETRY_MS, undefined, { signal });
      continue;
    }
    try {
      return await task();
    } finally {
      await attempt.release();
    }
  }
}

/** The lock is a file that appears complete (written aside, then linked) and names its holder. */
async function tryLock(file: string): Promise<LockAttempt> {
  const claim = await writeClaim(file);
  try {
    for (;;) {
      if (await appearsAs(claim.path, file)) return { acquired: true, release: claim.release };
      const found = await readIfThere(file);
      if (found === undefined) continue;
      const holder = parseHolder(found);
      if (holder && (await isRunning(holder))) return { acquired: false, holder };
      if (await replaceStale(file, found, claim.path)) return { acquired: true, release: claim.release };
    }
  } finally {
    await rm(claim.path, { force: true });
  }
}

/**
 * Removing a stale lock and making a new one are two steps, and a contender between them would lose its fresh lock to
 * the next. So the right to replace this very text is itself a lock, named after the text: whoever holds it and still
 * finds the text replaces it in one step. Its own staleness is resolved the same way.
 */
async function replaceStale(file: string, staleText: string, claimPath: string): Promise<boolean> {
  const digest = createHash('sha256').update(staleText).digest('hex').slice(0, 16);
  const right = await tryLock(`${file}.${digest}`);
  if (!right.acquired) {
    await pause(RETRY_MS);
    return false;
  }
  try {
    if ((await readIfThere(file)) !== staleText) return false;
    await rename(claimPath, file);
    return true;
  } finally {
    await right.release();
  }
}

async function writeClaim(file: string): Promise<{ path: string; release: () => Promise<void> }> {
  const self = await identify(process.pid);
  const holder: LockHolder = {
    pid: process.pid,
    birth: self?.birth ?? 'unknown',
    since: new Date().toISOString(),
    token: randomUUID(),
  };
  const text = `${JSON.stringify(holder)}\n`;
  const path = `${file}.${holder.token}`;
  await writeFile(path, text, { mode: 0o600, flag: 'wx' });
  const release = async () => {
    if ((await readIfThere(file)) === text) await rm(file, { force: true });
  };
  return { path, release };
}

async function appearsAs(path: string, file: string): Promise<boolean> {
  try {
    await link(path, file);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** A text that is no claim was cut short by a power cut: it has no holder. */
function parseHolder(text: string): LockHolder | undefined {
  try {
    return LockHolderSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
