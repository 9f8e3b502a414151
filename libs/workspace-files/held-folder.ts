import { type BigIntStats, constants } from 'node:fs';
import { chmod, type FileHandle, lstat, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { toFileError, WorkspaceFileError } from './workspace-file-error.js';

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
const isLinux = process.platform === 'linux';
/** Takes hold of what is there and does nothing else: a device does not notice, a pipe is not waited for. */
const O_PATH = isLinux ? 0o10000000 : 0;

type Name = string | Buffer;

/**
 * A folder that is held open, whatever becomes of its path meanwhile. What lies in it is reached by what is held and by one
 * name: so no path is taken twice, and no symlink is followed, also not one that takes a folder's place in between. Only Linux
 * has paths to what is held; elsewhere nothing runs in a workspace that could make a symlink.
 */
export class HeldFolder {
  private constructor(
    private readonly handle: FileHandle,
    /** Leads to the folder. */
    readonly self: Buffer,
  ) {}

  /** @throws Error where there is no folder, or a symlink to one */
  static async open(path: Name): Promise<HeldFolder> {
    const handle = await open(path, O_RDONLY | O_PATH | O_DIRECTORY | O_NOFOLLOW);
    return new HeldFolder(handle, isLinux ? Buffer.from(`/proc/self/fd/${handle.fd}`) : Buffer.from(path));
  }

  /** @throws WorkspaceFileError `missing`, `symlink` or `not_a_file` */
  async enter(name: Name): Promise<HeldFolder> {
    try {
      return await HeldFolder.open(this.place(name));
    } catch (error) {
      const stat = await this.look(name);
      if (stat?.isSymbolicLink()) throw new WorkspaceFileError('symlink', { cause: error });
      throw toFileError(error);
    }
  }

  /** The path of what has that name in it. To follow no symlink there is up to whoever takes it. */
  place(name: Name): Buffer {
    return Buffer.concat([this.self, SLASH, Buffer.from(name)]);
  }

  /** What has that name in it, itself; null where nothing has. */
  async look(name: Name): Promise<BigIntStats | null> {
    try {
      return await lstat(this.place(name), { bigint: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  }

  /** In no order; they need not be UTF-8. */
  async names(): Promise<Buffer[]> {
    return readdir(this.self, { encoding: 'buffer' });
  }

  stat(): Promise<BigIntStats> {
    return this.handle.stat({ bigint: true });
  }

  /** Opens a file to be read; anything else than a file is not opened at all. @throws WorkspaceFileError */
  async openFile(name: Name): Promise<{ file: FileHandle; stat: BigIntStats }> {
    try {
      return isLinux ? await openSeen(this.place(name)) : await openPlain(this.place(name));
    } catch (error) {
      throw toFileError(error);
    }
  }

  /** Lets its owner, which we are, do what they want with it. */
  async unlock(): Promise<void> {
    await chmod(this.self, 0o700);
  }

  /** Makes what was made, renamed and deleted in it outlive the machine. */
  async sync(): Promise<void> {
    const folder = await open(isLinux ? join(this.self.toString(), '.') : this.self, O_RDONLY | O_DIRECTORY);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

const SLASH = Buffer.from('/');

/**
 * Looks at what it has hold of before it opens that, and nothing else, to be read. Without waiting: whoever owns a file may take
 * a lease on it, and hold up one who opens it for as long.
 */
async function openSeen(path: Buffer): Promise<{ file: FileHandle; stat: BigIntStats }> {
  const seen = await open(path, O_PATH | O_NOFOLLOW);
  try {
    const stat = requireFile(await seen.stat({ bigint: true }));
    return { file: await open(`/proc/self/fd/${seen.fd}`, O_RDONLY | O_NONBLOCK), stat };
  } finally {
    await seen.close();
  }
}

async function openPlain(path: Buffer): Promise<{ file: FileHandle; stat: BigIntStats }> {
  requireFile(await lstat(path, { bigint: true }));
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    return { file, stat: requireFile(await file.stat({ bigint: true })) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function requireFile(stat: BigIntStats): BigIntStats {
  if (stat.isSymbolicLink()) throw new WorkspaceFileError('symlink');
  if (!stat.isFile()) throw new WorkspaceFileError('not_a_file');
  return stat;
}
