import { randomUUID } from 'node:crypto';
import { chmod, readdir, rename, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { openFolder, pathOf } from './open-folder.js';

/**
 * Removes what a run has left, whatever that is: names that are no text, folders that nobody may enter, and folders so deep in
 * one another that no path leads to the last. What lies deeper is moved up until it lies at the top, and follows no symlink.
 * Does nothing where there is nothing.
 */
export async function removeTree(path: string): Promise<void> {
  if (await removeIfNoFolder(path)) return;
  const root = await openFolder(path);
  try {
    const top = pathOf(root, path);
    await chmod(top, 0o700);
    for (let names = await namesIn(top); names.length > 0; names = await namesIn(top))
      for (const name of names) await removeOrFlatten(top, within(top, name));
  } finally {
    await root.close();
  }
  await rmdir(path);
}

async function removeOrFlatten(top: string, path: Buffer): Promise<void> {
  if (await removeIfNoFolder(path)) return;
  const folder = await openFolder(path);
  try {
    const here = pathOf(folder, path);
    await chmod(here, 0o700);
    for (const name of await namesIn(here)) {
      const inner = within(here, name);
      if (await removeIfNoFolder(inner)) continue;
      await unlock(inner);
      await rename(inner, join(top, `moved-${randomUUID()}`));
    }
  } finally {
    await folder.close();
  }
  await rmdir(path);
}

/** To be moved, a folder must be writable. */
async function unlock(path: Buffer): Promise<void> {
  const folder = await openFolder(path);
  try {
    await chmod(pathOf(folder, path), 0o700);
  } finally {
    await folder.close();
  }
}

/** @returns whether there is nothing any more */
async function removeIfNoFolder(path: string | Buffer): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return true;
    // EPERM is how macOS says it.
    if (code === 'EISDIR' || code === 'EPERM') return false;
    throw error;
  }
}

// Names need not be text.
const namesIn = (path: string | Buffer): Promise<Buffer[]> => readdir(path, { encoding: 'buffer' });

const within = (folder: string | Buffer, name: Buffer) =>
  Buffer.concat([Buffer.from(folder), Buffer.from('/'), name]);
