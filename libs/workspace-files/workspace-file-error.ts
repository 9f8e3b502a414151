/**
 * Why nothing was done with a workspace's file. `path`: it is no plain path (see pathFault). `missing`: there is nothing.
 * `symlink`: the way leads through one, or to one. `not_a_file`: a folder, a pipe, a device or a socket is in its place, or a
 * file in that of a folder. `too_large`: more than one file may hold. `full`: more than the workspace may hold. `unreadable`:
 * what ran there has taken the server's permission away. `broken_off`: the content did not come to its end. `disk_full`: the
 * machine has no room.
 */
export type WorkspaceFileFault =
  | 'path'
  | 'missing'
  | 'symlink'
  | 'not_a_file'
  | 'too_large'
  | 'full'
  | 'unreadable'
  | 'broken_off'
  | 'disk_full';

export class WorkspaceFileError extends Error {
  override readonly name = 'WorkspaceFileError';

  constructor(
    readonly fault: WorkspaceFileFault,
    options?: ErrorOptions,
  ) {
    super(`A workspace's file: ${fault}.`, options);
  }
}

/** What a failed call to the system means, where it is the workspace's own doing; what was thrown otherwise. */
export function toFileError(error: unknown): unknown {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return new WorkspaceFileError('missing', { cause: error });
    case 'ELOOP':
      return new WorkspaceFileError('symlink', { cause: error });
    case 'EISDIR':
    case 'ENOTDIR':
    case 'EEXIST':
    case 'ENOTEMPTY':
      return new WorkspaceFileError('not_a_file', { cause: error });
    case 'EAGAIN':
    case 'EACCES':
    case 'EPERM':
      return new WorkspaceFileError('unreadable', { cause: error });
    case 'ENAMETOOLONG':
      return new WorkspaceFileError('path', { cause: error });
    case 'ENOSPC':
    case 'EDQUOT':
      return new WorkspaceFileError('disk_full', { cause: error });
    default:
      return error;
  }
}
