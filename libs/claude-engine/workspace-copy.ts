import { constants } from 'node:fs';
import { chmod, copyFile, mkdir, open, readdir, readlink, symlink } from 'node:fs/promises';
import { openFolder, pathOf } from './open-folder.js';

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
const PERMISSIONS = 0o777;

/** How deep folders may lie in one another: each is held open while what is in it is copied. */
const MAX_DEPTH = 64;
const MAX_BYTES = 10 * 1024 ** 3;
/** What anything takes, be it empty. */
const LEAST_BYTES = 4096;

/** A workspace that is not copied. `too_deep`: its folders lie too deep in one another. `too_large`: it holds too much. */
export class WorkspaceNotCopied extends Error {
  override readonly name = 'WorkspaceNotCopied';

  constructor(readonly reason: 'too_deep' | 'too_large') {
    super(`A workspace could not be copied: ${reason}.`);
  }
}

/**
 * Copies what lies in a folder into another. Symlinks are copied, never followed: also not one that a run puts in the place of
 * a folder meanwhile. Left out is what is neither file, folder nor symlink, what may not be read, and what goes away meanwhile.
 * @throws WorkspaceNotCopied and leaves what has been copied by then
 */
export async function copyTree(from: string, to: string, maxBytes = MAX_BYTES): Promise<void> {
  await copyFolder(Buffer.from(from), Buffer.from(to), { depth: 0, budget: { bytes: maxBytes } });
}

interface Bounds {
  depth: number;
  budget: { bytes: number };
}

async function copyFolder(from: Buffer, to: Buffer, { depth, budget }: Bounds): Promise<void> {
  if (depth > MAX_DEPTH) throw new WorkspaceNotCopied('too_deep');
  const source = await openFolder(from);
  try {
    const destination = await openFolder(to);
    try {
      const [there, here] = [pathOf(source, from), pathOf(destination, to)];
      for (const entry of await readdir(there, { withFileTypes: true, encoding: 'buffer' })) {
        const [origin, copy] = [within(there, entry.name), within(here, entry.name)];
        await unlessGone(async () => {
          spend(budget, LEAST_BYTES);
          if (entry.isDirectory()) {
            await mkdir(copy, { mode: 0o700 });
            await copyFolder(origin, copy, { depth: depth + 1, budget });
          } else if (entry.isFile()) await copyOne(origin, copy, budget);
          else if (entry.isSymbolicLink())
            await symlink(await readlink(origin, { encoding: 'buffer' }), copy);
        });
      }
    } finally {
      await destination.close();
    }
  } finally {
    await source.close();
  }
}

async function copyOne(from: Buffer, to: Buffer, budget: Bounds['budget']): Promise<void> {
  // Not to wait for ever for what was made a pipe meanwhile.
  const file = await open(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) return;
    spend(budget, stat.size);
    await copyFile(pathOf(file, from), to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    await chmod(to, stat.mode & PERMISSIONS);
  } finally {
    await file.close();
  }
}

function spend(budget: Bounds['budget'], bytes: number): void {
  budget.bytes -= bytes;
  if (budget.bytes < 0) throw new WorkspaceNotCopied('too_large');
}

const within = (folder: string, name: Buffer) => Buffer.concat([Buffer.from(folder), Buffer.from('/'), name]);

/** ELOOP, ENOTDIR, EINVAL: something else has taken its place. EACCES: it may not be read. */
const GONE = new Set(['ENOENT', 'ELOOP', 'ENOTDIR', 'EINVAL', 'EEXIST', 'EACCES']);

async function unlessGone(copy: () => Promise<void>): Promise<void> {
  try {
    await copy();
  } catch (error) {
    if (!GONE.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
