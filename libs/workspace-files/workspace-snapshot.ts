import { type BigIntStats } from 'node:fs';
import { HeldFolder } from './held-folder.js';
import { walkWorkspace } from './workspace-walk.js';

/** What lay in a workspace at a moment. */
export interface WorkspaceSnapshot {
  /** What it holds; see UsageMeter. */
  bytes: number;
  /** Of each file and symlink, by its path, what changes with its content. Null where there are too many to be kept. */
  files: ReadonlyMap<string, string> | null;
}

export interface FileChange {
  path: string;
  change: 'added' | 'modified' | 'deleted';
}

const MAX_FILES = 50_000;
const BLOCK_BYTES = 4096;

/**
 * Adds up what a workspace holds. Everything counts as the blocks of 4 KiB that it would fill, and as one at least: a million
 * empty files are not nothing. What has several names counts once. A folder that lies too deep to be looked into counts as more
 * than any workspace may hold.
 */
class UsageMeter {
  private total = 0;
  private readonly counted = new Set<bigint>();

  get bytes(): number {
    return this.total;
  }

  add(stat: BigIntStats, isCut: boolean): void {
    if (isCut) this.total = Infinity;
    if (stat.nlink > 1n && !stat.isDirectory()) {
      if (this.counted.has(stat.ino)) return;
      this.counted.add(stat.ino);
    }
    this.total += spaceOf(stat.isFile() ? Number(stat.size) : 0);
  }
}

/** What a file of that many bytes counts as. */
export const spaceOf = (bytes: number) => Math.max(1, Math.ceil(bytes / BLOCK_BYTES)) * BLOCK_BYTES;

/** A workspace that is not there holds nothing. */
export async function takeSnapshot(folder: string): Promise<WorkspaceSnapshot> {
  const meter = new UsageMeter();
  const files = new Map<string, string>();
  let unkept = 0;
  await walkFolder(folder, ({ path, stat, isCut }) => {
    meter.add(stat, isCut);
    if (path === null || !(stat.isFile() || stat.isSymbolicLink())) return true;
    if (files.size < MAX_FILES) files.set(path, `${stat.ino} ${stat.size} ${stat.mtimeNs}`);
    else unkept += 1;
    return true;
  });
  return { bytes: meter.bytes, files: unkept === 0 ? files : null };
}

/** What a workspace holds, in bytes. Stops to count at more than `enough`. */
export async function measureWorkspace(folder: string, enough = Infinity): Promise<number> {
  const meter = new UsageMeter();
  await walkFolder(folder, ({ stat, isCut }) => {
    meter.add(stat, isCut);
    return meter.bytes <= enough;
  });
  return meter.bytes;
}

/** What became of the files between two snapshots, by path; null where one of them does not tell. */
export function changesBetween(before: WorkspaceSnapshot, after: WorkspaceSnapshot): FileChange[] | null {
  if (!before.files || !after.files) return null;
  const changes: FileChange[] = [];
  for (const [path, state] of after.files) {
    const earlier = before.files.get(path);
    if (earlier === undefined) changes.push({ path, change: 'added' });
    else if (earlier !== state) changes.push({ path, change: 'modified' });
  }
  for (const path of before.files.keys())
    if (!after.files.has(path)) changes.push({ path, change: 'deleted' });
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Until `see` says no. A folder that is not there has nothing in it. */
async function walkFolder(
  folder: string,
  see: (entry: { path: string | null; stat: BigIntStats; isCut: boolean }) => boolean,
): Promise<void> {
  let root: HeldFolder;
  try {
    root = await HeldFolder.open(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    for await (const entry of walkWorkspace(root)) if (!see(entry)) return;
  } finally {
    await root.close();
  }
}
