import { readlink } from 'node:fs/promises';
import { Header, Pax } from 'tar';
import { contentOf } from './file-content.js';
import { type HeldFolder } from './held-folder.js';
import { WorkspaceFileError } from './workspace-file-error.js';
import { type WalkedEntry, walkWorkspace } from './workspace-walk.js';

const BLOCK = 512;
const END = Buffer.alloc(2 * BLOCK);
const PERMISSIONS = 0o777n;

/**
 * A workspace as a tar of files, folders and symlinks, made as it is read. Left out is everything else, and what may not be read
 * or goes away meanwhile. A file that becomes shorter while it is read is filled up with zeros, as GNU tar does.
 */
export async function* archiveOf(root: HeldFolder): AsyncGenerator<Buffer, void, undefined> {
  for await (const entry of walkWorkspace(root)) {
    if (entry.path === null) continue;
    if (entry.stat.isFile()) yield* fileOf(entry, entry.path);
    else if (entry.stat.isDirectory()) yield headerOf(entry, { type: 'Directory', path: `${entry.path}/` });
    else if (entry.stat.isSymbolicLink()) yield* linkOf(entry, entry.path);
  }
  yield END;
}

async function* fileOf(entry: WalkedEntry, path: string): AsyncGenerator<Buffer, void> {
  const opened = await ifThere(() => entry.folder.openFile(entry.name));
  if (!opened) return;
  const size = Number(opened.stat.size);
  try {
    yield headerOf({ stat: opened.stat }, { type: 'File', path, size });
    let missing = size;
    for await (const chunk of contentOf(opened.file, size)) {
      missing -= chunk.length;
      yield chunk;
    }
    yield* zeros(missing + ((BLOCK - (size % BLOCK)) % BLOCK));
  } finally {
    await opened.file.close();
  }
}

async function* linkOf(entry: WalkedEntry, path: string): AsyncGenerator<Buffer, void> {
  const linkpath = await readlink(entry.folder.place(entry.name)).catch(() => null);
  if (linkpath !== null) yield headerOf(entry, { type: 'SymbolicLink', path, linkpath });
}

function headerOf(
  { stat }: Pick<WalkedEntry, 'stat'>,
  fields: { type: 'File' | 'Directory' | 'SymbolicLink'; path: string; size?: number; linkpath?: string },
): Buffer {
  const { path, linkpath, size = 0 } = fields;
  const mtime = new Date(Number(stat.mtimeMs));
  const header = new Header({ ...fields, size, mode: Number(stat.mode & PERMISSIONS), mtime });
  const needsMore = header.encode();
  const block = header.block ?? END.subarray(0, BLOCK);
  if (!needsMore) return block;
  return Buffer.concat([
    new Pax({ path, size, mtime, ...(linkpath !== undefined && { linkpath }) }).encode(),
    block,
  ]);
}

const ZEROS = Buffer.alloc(64 * 1024);

function* zeros(count: number): Generator<Buffer, void> {
  for (let left = count; left > 0; left -= ZEROS.length)
    yield ZEROS.subarray(0, Math.min(left, ZEROS.length));
}

async function ifThere<T>(open: () => Promise<T>): Promise<T | null> {
  try {
    return await open();
  } catch (error) {
    if (error instanceof WorkspaceFileError) return null;
    throw error;
  }
}
