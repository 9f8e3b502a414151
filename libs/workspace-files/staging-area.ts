import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rmdir, unlink } from 'node:fs/promises';
import { HeldFolder } from './held-folder.js';
import { WorkspaceFileError } from './workspace-file-error.js';

const { O_CREAT, O_EXCL, O_WRONLY } = constants;
const PRIVATE = 0o700;
const FOLDER = new Set(['EISDIR', 'EPERM']);

/** What one upload may still bring. */
export interface Limits {
  /** Of one file. */
  maxFileBytes: number;
  /** What the workspace has left for it. */
  roomBytes: number;
}

/**
 * A folder beside the workspaces, on the same file system, that no run can see: what comes is written there and moved into its
 * workspace when it is whole, and what goes is moved there before it is taken apart.
 */
export class StagingArea {
  private constructor(private readonly folder: HeldFolder) {}

  static async open(path: string): Promise<StagingArea> {
    await mkdir(path, { recursive: true, mode: PRIVATE });
    return new StagingArea(await HeldFolder.open(path));
  }

  /** @throws WorkspaceFileError `too_large`, `full`, `broken_off` */
  async receive(content: AsyncIterable<Buffer>, limits: Limits): Promise<StagedFile> {
    const name = randomUUID();
    const file = await open(this.folder.place(name), O_CREAT | O_EXCL | O_WRONLY, 0o600);
    const staged = new StagedFile(file, this.folder.place(name));
    try {
      for await (const chunk of unbroken(content)) await staged.add(chunk, limits);
      return staged;
    } catch (error) {
      await staged.discard();
      throw error;
    }
  }

  /** Takes something out of a workspace, at once and whole, and takes it apart. */
  async remove(path: Buffer): Promise<void> {
    const name = randomUUID();
    await rename(path, this.folder.place(name));
    // It is gone by now. What cannot be taken apart is swept.
    await this.takeApart(name).catch(() => undefined);
  }

  /** Takes apart what servers that died have left. @param before when it was last written to, in milliseconds */
  async sweep(before: number): Promise<void> {
    for (const name of await this.folder.names()) {
      const stat = await this.folder.look(name);
      if (stat && Number(stat.mtimeMs) < before) await this.takeApart(name.toString());
    }
  }

  close(): Promise<void> {
    return this.folder.close();
  }

  /** Folders come up here one by one: however deep they lay, no path grows long. */
  private async takeApart(name: string): Promise<void> {
    const left = [name];
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      if (await removedAsFile(this.folder.place(next))) continue;
      const folder = await this.folder.enter(next);
      try {
        await folder.unlock();
        for (const inner of await folder.names()) {
          if (await removedAsFile(folder.place(inner))) continue;
          await unlock(folder, inner);
          const raised = randomUUID();
          await rename(folder.place(inner), this.folder.place(raised));
          left.push(raised);
        }
      } finally {
        await folder.close();
      }
      await rmdir(this.folder.place(next));
    }
  }
}

/** A file that has come, or is coming. */
export class StagedFile {
  private size = 0;

  constructor(
    readonly file: FileHandle,
    private readonly path: Buffer,
  ) {}

  get bytes(): number {
    return this.size;
  }

  async add(chunk: Buffer, { maxFileBytes, roomBytes }: Limits): Promise<void> {
    this.size += chunk.length;
    if (this.size > maxFileBytes) throw new WorkspaceFileError('too_large');
    if (this.size > roomBytes) throw new WorkspaceFileError('full');
    await this.file.writeFile(chunk);
  }

  /** Takes the place of whatever file is there, in one step. */
  async moveTo(place: Buffer): Promise<void> {
    await rename(this.path, place);
  }

  close(): Promise<void> {
    return this.file.close();
  }

  async discard(): Promise<void> {
    await unlink(this.path).catch(() => undefined);
    await this.file.close();
  }
}

/** A folder that may not be written to cannot be moved either. */
async function unlock(parent: HeldFolder, name: Buffer): Promise<void> {
  const folder = await parent.enter(name);
  try {
    await folder.unlock();
  } finally {
    await folder.close();
  }
}

/** @returns false for a folder */
async function removedAsFile(path: Buffer): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if (FOLDER.has((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

async function* unbroken(content: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  try {
    yield* content;
  } catch (error) {
    throw new WorkspaceFileError('broken_off', { cause: error });
  }
}
