import { type Stats } from 'node:fs';
import { chmod, lstat, mkdir, readdir, realpath, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { copyTree } from './workspace-copy.js';
import { removeTree } from './workspace-removal.js';

const PRIVATE = 0o700;
const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

/** Where an engine keeps things: `launches/<id>` (gone with the launch) and `workspaces/<key>` (kept). */
export class EngineFolders {
  constructor(readonly directory: string) {}

  get launches(): string {
    return join(this.directory, 'launches');
  }

  get workspaces(): string {
    return join(this.directory, 'workspaces');
  }

  /** Makes a launch's folder, with one for the CLI's configuration and one for its temporary files. */
  async makeLaunch(id: string): Promise<LaunchFolders> {
    await makePrivate(this.launches);
    const root = join(await realpath(this.launches), id);
    await mkdir(root, { mode: PRIVATE });
    const folders = { root, config: join(root, 'config'), temporary: join(root, 'tmp') };
    await mkdir(folders.config, { mode: PRIVATE });
    await mkdir(folders.temporary, { mode: PRIVATE });
    return folders;
  }

  /** Makes a workspace that is nobody's yet, and goes with its launch until it is handed over. */
  async makeSpareWorkspace({ root }: Pick<LaunchFolders, 'root'>): Promise<string> {
    const workspace = this.spareWorkspace({ root });
    await mkdir(workspace, { mode: PRIVATE });
    return workspace;
  }

  spareWorkspace({ root }: Pick<LaunchFolders, 'root'>): string {
    return join(root, 'workspace');
  }

  /**
   * Makes a spare workspace the one of this key. A sandbox that shows it goes on showing it.
   * @returns false where the key has one, or it cannot be moved there
   */
  async handOver(spareWorkspace: string, key: string): Promise<boolean> {
    await makePrivate(this.workspaces);
    if (await this.hasWorkspace(key)) return false;
    // One that was made in between, and has something in it, is not replaced.
    return rename(spareWorkspace, join(this.workspaces, key)).then(
      () => true,
      () => false,
    );
  }

  async hasWorkspace(key: string): Promise<boolean> {
    assertPlainName(key);
    return (await lstat(join(this.workspaces, key)).catch(ifMissing(null))) !== null;
  }

  /**
   * Makes the workspace if it is missing. Returns its path, free of symlinks.
   * @throws Error if something else than a folder of ours is in its place
   */
  async makeWorkspace(key: string): Promise<string> {
    assertPlainName(key);
    await makePrivate(this.workspaces);
    const workspace = join(await realpath(this.workspaces), key);
    await makePrivate(workspace);
    return workspace;
  }

  /** Where a workspace is, or would be. */
  workspaceAt(key: string): string {
    assertPlainName(key);
    return join(this.workspaces, key);
  }

  /** Whether there is anything in a workspace. */
  async holdsFiles(key: string): Promise<boolean> {
    assertPlainName(key);
    return (await readdir(join(this.workspaces, key)).catch(ifMissing([]))).length > 0;
  }

  async listWorkspaces(): Promise<KeptWorkspace[]> {
    const names = await readdir(this.workspaces).catch(ifMissing([]));
    const found = await Promise.all(
      names.filter(isPlainName).map(async (key) => {
        const stat = await lstat(join(this.workspaces, key)).catch(ifMissing(null));
        return stat && { key, changedAt: lastChange(stat) };
      }),
    );
    return found.filter((workspace) => workspace !== null);
  }

  /**
   * Makes a workspace that begins as a copy of another. @returns false where the other is not here
   * @throws WorkspaceNotCopied and leaves nothing
   */
  async copyWorkspace(from: string, key: string): Promise<boolean> {
    assertPlainName(from);
    const origin = join(this.workspaces, from);
    const found = await lstat(origin).catch(ifMissing(null));
    if (!found?.isDirectory()) return false;
    const copy = await this.makeWorkspace(key);
    try {
      await copyTree(origin, copy);
    } catch (error) {
      await removeTree(copy);
      throw error;
    }
    return true;
  }

  async removeWorkspace(key: string): Promise<void> {
    assertPlainName(key);
    await removeTree(join(this.workspaces, key));
  }
}

export interface KeptWorkspace {
  key: string;
  /** When something was last added to the folder itself, or taken out. */
  changedAt: Date;
}

export interface LaunchFolders {
  root: string;
  config: string;
  temporary: string;
}

/**
 * Whatever runs in a folder can say that it was changed in the year 2099; the system's own note it cannot. The dates of `stat` are
 * rounded, and may lie ahead.
 */
const lastChange = ({ mtimeMs, ctimeMs }: Stats) => new Date(Math.floor(Math.min(mtimeMs, ctimeMs)));

const isPlainName = (name: string) => PLAIN_NAME.test(name);

/** @throws Error for a name that could be a path, or could hide */
export function assertPlainName(name: string): void {
  if (!isPlainName(name)) throw new Error(`Not a plain name: ${JSON.stringify(name.slice(0, 100))}.`);
}

async function makePrivate(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: PRIVATE });
  const stat = await lstat(folder);
  if (!stat.isDirectory()) throw new Error(`Not a folder: ${folder}.`);
  if ((stat.mode & 0o077) !== 0) await chmod(folder, PRIVATE);
}

const ifMissing =
  <T>(instead: T) =>
  (error: NodeJS.ErrnoException): T => {
    if (error.code === 'ENOENT') return instead;
    throw error;
  };
