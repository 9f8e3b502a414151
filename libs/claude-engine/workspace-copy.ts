import { constants } from 'node:fs';
import { chmod, copyFile, type FileHandle, mkdir, open, readdir, readlink, symlink } from 'node:fs/promises';
import { join } from 'node:path';

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
const PERMISSIONS = 0o777;

/**
 * Copies what lies in a folder into another. Symlinks are copied, never followed: also not one that a run puts in the place of
 * a folder meanwhile. Left out is what is neither file, folder nor symlink, and what goes away meanwhile.
 */
export async function copyTree(from: string, to: string): Promise<void> {
  const source = await open(from, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    const folder = pathOf(source, from);
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      const [there, here] = [join(folder, entry.name), join(to, entry.name)];
      await unlessGone(async () => {
        if (entry.isDirectory()) {
          await mkdir(here, { mode: 0o700 });
          await copyTree(there, here);
        } else if (entry.isFile()) await copyOne(there, here);
        else if (entry.isSymbolicLink()) await symlink(await readlink(there), here);
      });
    }
  } finally {
    await source.close();
  }
}

async function copyOne(from: string, to: string): Promise<void> {
  // Not to wait for ever for what was made a pipe meanwhile.
  const file = await open(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) return;
    await copyFile(pathOf(file, from), to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    await chmod(to, stat.mode & PERMISSIONS);
  } finally {
    await file.close();
  }
}

/** A path that leads to what was opened, whatever lies at the path that it was opened by; Linux alone has one. */
function pathOf({ fd }: FileHandle, path: string): string {
  return process.platform === 'linux' ? `/proc/self/fd/${fd}` : path;
}

/** ELOOP, ENOTDIR: something else has taken its place. */
const GONE = new Set(['ENOENT', 'ELOOP', 'ENOTDIR', 'EEXIST']);

async function unlessGone(copy: () => Promise<void>): Promise<void> {
  try {
    await copy();
  } catch (error) {
    if (!GONE.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
