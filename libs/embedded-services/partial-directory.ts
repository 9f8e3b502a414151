import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errorCode, pidIsTaken } from './os-process.js';

/**
 * Makes `target` appear complete or not at all: built beside it, then renamed. Of several processes that build at once
 * the first one's is kept. What a killed builder left is removed on the way.
 * @param build is given an empty directory and answers which one is to become the target: that, or one within.
 */
export async function buildDirectory(
  target: string,
  build: (partial: string) => Promise<string>,
): Promise<void> {
  await mkdir(dirname(target), { recursive: true, mode: 0o700 });
  await removeAbandoned(target);
  const partial = `${target}.partial-${process.pid}-${randomBytes(4).toString('hex')}`;
  await mkdir(partial, { mode: 0o700 });
  try {
    const built = await build(partial);
    await rename(built, target).catch(unlessTaken);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

function unlessTaken(error: unknown): void {
  if (!['EEXIST', 'ENOTEMPTY'].includes(errorCode(error) ?? '')) throw error;
}

async function removeAbandoned(target: string): Promise<void> {
  const prefix = `${basename(target)}.partial-`;
  for (const name of await readdir(dirname(target))) {
    if (!name.startsWith(prefix)) continue;
    const pid = Number.parseInt(name.slice(prefix.length), 10);
    if (!pidIsTaken(pid)) await rm(join(dirname(target), name), { recursive: true, force: true });
  }
}
