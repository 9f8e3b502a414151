import { isUtf8 } from 'node:buffer';
import { type BigIntStats } from 'node:fs';
import { type HeldFolder } from './held-folder.js';
import { toFileError, WorkspaceFileError } from './workspace-file-error.js';
import { MAX_DEPTH } from './workspace-path.js';

export interface WalkedEntry {
  /** Where it lies; open until the walk goes on. */
  folder: HeldFolder;
  name: Buffer;
  /** Relative to the workspace. Null where a name on the way is not UTF-8: no text leads there. */
  path: string | null;
  stat: BigIntStats;
  /** A folder that lies too deep to be entered. */
  isCut: boolean;
}

/** How many are looked at together: the system is asked in other threads. */
const BATCH = 64;

/**
 * Everything in a workspace, folders before what is in them, by the bytes of their names; no symlink is followed. Left out is
 * what goes away meanwhile, and what is in folders that may not be read.
 * @param after only what comes after the names of a path, which need not be there any more
 */
export async function* walkWorkspace(
  root: HeldFolder,
  after: readonly string[] = [],
): AsyncGenerator<WalkedEntry, void, undefined> {
  yield* walk(root, { path: '', depth: 0, after: after.map((name) => Buffer.from(name)) });
}

interface Place {
  path: string | null;
  depth: number;
  after: readonly Buffer[];
}

async function* walk(folder: HeldFolder, { path, depth, after }: Place): AsyncGenerator<WalkedEntry, void> {
  const [passed, ...further] = after;
  const names = await namesOf(folder);
  const rest = passed ? names.filter((name) => Buffer.compare(name, passed) >= 0) : names;
  for (let start = 0; start < rest.length; start += BATCH) {
    const batch = rest.slice(start, start + BATCH);
    const stats = await Promise.all(batch.map((name) => folder.look(name).catch(() => null)));
    for (const [index, stat] of stats.entries()) {
      const name = batch[index];
      if (!stat || !name) continue;
      const place = path !== null && isUtf8(name) ? path + name.toString() : null;
      const isCut = stat.isDirectory() && depth + 1 >= MAX_DEPTH;
      const isPassed = passed?.equals(name) ?? false;
      if (!isPassed) yield { folder, name, path: place, stat, isCut };
      if (!stat.isDirectory() || isCut) continue;
      const inner = await enterIfThere(folder, name);
      if (!inner) continue;
      try {
        const below = place === null ? null : `${place}/`;
        yield* walk(inner, { path: below, depth: depth + 1, after: isPassed ? further : [] });
      } finally {
        await inner.close();
      }
    }
  }
}

async function namesOf(folder: HeldFolder): Promise<Buffer[]> {
  try {
    return (await folder.names()).sort((a, b) => a.compare(b));
  } catch (error) {
    if (toFileError(error) instanceof WorkspaceFileError) return [];
    throw error;
  }
}

async function enterIfThere(folder: HeldFolder, name: Buffer): Promise<HeldFolder | null> {
  try {
    return await folder.enter(name);
  } catch (error) {
    if (error instanceof WorkspaceFileError) return null;
    throw error;
  }
}
