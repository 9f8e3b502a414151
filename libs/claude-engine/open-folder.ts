import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;
const isLinux = process.platform === 'linux';
/** Takes hold of a folder also where it may not be read. Linux alone has it. */
const O_PATH = isLinux ? 0o10000000 : 0;

/** Takes hold of a folder: of nothing else, and of no symlink to one. */
export function openFolder(path: string | Buffer): Promise<FileHandle> {
  return open(path, O_RDONLY | O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

/** A path that leads to what was opened, whatever lies at the path that it was opened by; Linux alone has one. */
export function pathOf({ fd }: FileHandle, path: string | Buffer): string {
  return isLinux ? `/proc/self/fd/${fd}` : path.toString();
}
