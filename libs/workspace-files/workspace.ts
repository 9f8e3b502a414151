import { type BigIntStats } from 'node:fs';
import { type FileHandle, lchown, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { contentOf } from './file-content.js';
import { HeldFolder } from './held-folder.js';
import { type StagedFile, StagingArea } from './staging-area.js';
import { archiveOf } from './workspace-archive.js';
import { toFileError, WorkspaceFileError } from './workspace-file-error.js';
import { pathFault } from './workspace-path.js';
import { measureWorkspace, spaceOf } from './workspace-snapshot.js';
import { type WalkedEntry, walkWorkspace } from './workspace-walk.js';

export interface WorkspaceEntry {
  path: string;
  type: 'file' | 'folder' | 'symlink' | 'other';
  /** In bytes; null of what is no file. */
  size: number | null;
  modifiedAt: Date;
}

/** A file that is open to be read. Whoever has it reads `content` or closes it. */
export interface OpenedFile {
  size: number;
  modifiedAt: Date;
  /** Changes with the content. */
  tag: string;
  /** Exactly `size` bytes: breaks off where the file has become shorter. Closes it. */
  content: () => Readable;
  close: () => Promise<void>;
}

export interface WorkspaceQuota {
  /** What a workspace may hold, as UsageMeter counts. */
  quotaBytes: number;
  maxFileBytes: number;
}

const STAGING = '.staging';
const FILE_MODE = 0o644;
const FOLDER_MODE = 0o755;
const PERMISSIONS = 0o777n;

/**
 * The files of a workspace, for whoever is outside. What runs in it may do to it whatever it likes, also meanwhile: nothing
 * outside of it is reached, by whatever path; nothing but files is opened; and nothing is waited for.
 */
export class Workspace {
  /** @param folder that of the workspace, beside which there is a staging area; its parent holds no symlink */
  constructor(private readonly folder: string) {}

  /**
   * What is in it, by the bytes of the names on the way.
   * @param after goes on after that path
   * @throws WorkspaceFileError `missing` where there is no workspace
   */
  async list({ after, limit }: { after?: string | undefined; limit: number }): Promise<WorkspaceEntry[]> {
    return this.holding(async (root) => {
      const entries: WorkspaceEntry[] = [];
      for await (const { path, stat } of walkWorkspace(root, after?.split('/'))) {
        if (entries.length >= limit) break;
        if (path !== null) entries.push(toEntry(path, stat));
      }
      return entries;
    });
  }

  /** @throws WorkspaceFileError */
  async open(path: string): Promise<OpenedFile> {
    const { file, stat } = await this.within(path, (parent, name) => parent.openFile(name));
    const size = Number(stat.size);
    return {
      size,
      modifiedAt: new Date(Number(stat.mtimeMs)),
      tag: [stat.ino, stat.size, stat.mtimeNs].map((part) => part.toString(36)).join('-'),
      content: () => closing(file, Readable.from(wholeContent(file, size), { objectMode: false })),
      close: () => file.close(),
    };
  }

  /**
   * Writes a file: it is there whole, or not at all. What it replaces keeps its permissions; folders on the way are made.
   * @param inTurn lets what is done with one workspace be done one after the other, so that it holds no more than it may
   * @throws WorkspaceFileError
   */
  async write(
    path: string,
    content: AsyncIterable<Buffer>,
    quota: WorkspaceQuota,
    inTurn: <T>(act: () => Promise<T>) => Promise<T> = (act) => act(),
  ): Promise<'added' | 'replaced'> {
    const room = quota.quotaBytes - (await measureWorkspace(this.folder)) + (await this.spaceAt(path));
    const staging = await StagingArea.open(join(dirname(this.folder), STAGING));
    try {
      const { maxFileBytes } = quota;
      const staged = await staging.receive(content, { maxFileBytes, roomBytes: room });
      try {
        return await inTurn(() => this.put(path, staged, quota));
      } catch (error) {
        await staged.discard();
        throw error;
      }
    } catch (error) {
      throw toFileError(error);
    } finally {
      await staging.close();
    }
  }

  /** Deletes a file, a symlink, or a folder with all that is in it. @throws WorkspaceFileError */
  async remove(path: string): Promise<void> {
    const staging = await StagingArea.open(join(dirname(this.folder), STAGING));
    try {
      await this.within(path, async (parent, name) => {
        if (!(await parent.look(name))) throw new WorkspaceFileError('missing');
        await staging.remove(parent.place(name));
      });
    } finally {
      await staging.close();
    }
  }

  /** All of it as a tar. @throws WorkspaceFileError `missing` where there is no workspace */
  async archive(): Promise<Readable> {
    const root = await this.openRoot();
    return closing(root, Readable.from(archiveOf(root), { objectMode: false }));
  }

  private async put(path: string, staged: StagedFile, quota: WorkspaceQuota): Promise<'added' | 'replaced'> {
    return this.holding(async (root) => {
      const way = new Way(root);
      try {
        const names = namesIn(path);
        const name = names.pop() ?? '';
        await way.follow(names);
        const replaced = way.isComplete ? await way.end.look(name) : null;
        if (replaced) requireReplaceable(replaced);
        // What has come in the meantime counts too.
        const held = await measureWorkspace(this.folder);
        const space = spaceOf(staged.bytes) - (replaced ? spaceOf(Number(replaced.size)) : 0);
        if (held + space > quota.quotaBytes) throw new WorkspaceFileError('full');
        await staged.file.chmod(replaced ? Number(replaced.mode & PERMISSIONS) : FILE_MODE);
        await staged.file.sync();
        await way.make();
        await way.give(staged.file);
        await staged.moveTo(way.end.place(name));
        await way.give(staged.file);
        await way.end.sync();
        await staged.close();
        return replaced ? 'replaced' : 'added';
      } catch (error) {
        throw toFileError(error);
      } finally {
        await way.close();
      }
    });
  }

  /** What a file counts as that would be replaced. */
  private async spaceAt(path: string): Promise<number> {
    try {
      return await this.within(path, async (parent, name) => {
        const stat = await parent.look(name);
        if (!stat) return 0;
        requireReplaceable(stat);
        return spaceOf(Number(stat.size));
      });
    } catch (error) {
      if (error instanceof WorkspaceFileError && error.fault === 'missing') return 0;
      throw error;
    }
  }

  private async within<T>(path: string, act: (parent: HeldFolder, name: string) => Promise<T>): Promise<T> {
    const names = namesIn(path);
    const name = names.pop() ?? '';
    return this.holding(async (root) => {
      const way = new Way(root);
      try {
        await way.follow(names);
        if (!way.isComplete) throw new WorkspaceFileError('missing');
        return await act(way.end, name);
      } catch (error) {
        throw toFileError(error);
      } finally {
        await way.close();
      }
    });
  }

  private async holding<T>(act: (root: HeldFolder) => Promise<T>): Promise<T> {
    const root = await this.openRoot();
    try {
      return await act(root);
    } finally {
      await root.close();
    }
  }

  private async openRoot(): Promise<HeldFolder> {
    try {
      return await HeldFolder.open(this.folder);
    } catch (error) {
      throw toFileError(error);
    }
  }
}

/** The folders on the way to a file, each held open by the one before. */
class Way {
  private readonly folders: { folder: HeldFolder; name: string; isNew: boolean }[] = [];
  private missing: string[] = [];

  constructor(private readonly root: HeldFolder) {}

  get end(): HeldFolder {
    return this.folders.at(-1)?.folder ?? this.root;
  }

  get isComplete(): boolean {
    return this.missing.length === 0;
  }

  /** As far as there are folders. @throws WorkspaceFileError where there is something else */
  async follow(names: string[]): Promise<void> {
    for (const [index, name] of names.entries()) {
      if (!(await this.end.look(name))) {
        this.missing = names.slice(index);
        return;
      }
      this.folders.push({ folder: await this.end.enter(name), name, isNew: false });
    }
  }

  /** Makes the folders that were missing. */
  async make(): Promise<void> {
    for (const name of this.missing) {
      await mkdir(this.end.place(name), { mode: FOLDER_MODE }).catch(unlessThere);
      this.folders.push({ folder: await this.end.enter(name), name, isNew: true });
    }
    this.missing = [];
  }

  /**
   * Gives a file, and the folders that were made for it, to whom the workspace belongs: that is who its CLIs are. They may
   * become somebody else only now; to whom it belongs then, all that is in it is given, and after that the folder itself.
   */
  async give(file: FileHandle): Promise<void> {
    if (process.getuid?.() !== 0) return;
    for (;;) {
      const { uid, gid } = await this.root.stat();
      await file.chown(Number(uid), Number(gid));
      for (const [index, { name, isNew }] of this.folders.entries()) {
        const parent = this.folders[index - 1]?.folder ?? this.root;
        if (isNew) await lchown(parent.place(name), Number(uid), Number(gid));
      }
      if ((await this.root.stat()).uid === uid) return;
    }
  }

  async close(): Promise<void> {
    for (const { folder } of this.folders) await folder.close();
  }
}

function unlessThere(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
}

/** @throws WorkspaceFileError `path` */
function namesIn(path: string): string[] {
  if (pathFault(path)) throw new WorkspaceFileError('path');
  return path.split('/');
}

/** @throws WorkspaceFileError for what is no file */
function requireReplaceable(stat: BigIntStats): void {
  if (stat.isSymbolicLink()) throw new WorkspaceFileError('symlink');
  if (!stat.isFile()) throw new WorkspaceFileError('not_a_file');
}

function toEntry(path: string, stat: WalkedEntry['stat']): WorkspaceEntry {
  const modifiedAt = new Date(Number(stat.mtimeMs));
  if (stat.isFile()) return { path, type: 'file', size: Number(stat.size), modifiedAt };
  if (stat.isDirectory()) return { path, type: 'folder', size: null, modifiedAt };
  return { path, type: stat.isSymbolicLink() ? 'symlink' : 'other', size: null, modifiedAt };
}

async function* wholeContent(file: FileHandle, size: number): AsyncGenerator<Buffer, void> {
  let missing = size;
  for await (const chunk of contentOf(file, size)) {
    missing -= chunk.length;
    yield chunk;
  }
  if (missing > 0) throw new Error('The file has become shorter while it was read.');
}

/** Also where nobody begins to read the stream: then its generator never comes to an end of its own. */
function closing(held: { close: () => Promise<void> }, stream: Readable): Readable {
  return stream.once('close', () => void held.close().catch(() => undefined));
}

/** Takes apart what servers that died have left beside their workspaces. @param before when it was last written to */
export async function sweepStaging(workspaces: string, before: Date): Promise<void> {
  const staging = await StagingArea.open(join(workspaces, STAGING));
  try {
    await staging.sweep(before.getTime());
  } finally {
    await staging.close();
  }
}
