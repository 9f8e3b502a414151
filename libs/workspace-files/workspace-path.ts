/** Of a name, in bytes: what Linux's and macOS's file systems allow. */
const MAX_NAME_BYTES = 255;
const MAX_PATH_BYTES = 4096;
/** How deep folders may lie in one another. Whoever walks through them holds each open. */
export const MAX_DEPTH = 64;

export interface PathFault {
  code: 'contains_nul' | 'path_outside' | 'path_not_plain' | 'lone_surrogate' | 'too_big' | 'too_deep';
  message: string;
}

/** What keeps a text from being the path of a file in a workspace: names, parted by `/`. Null if nothing does. */
export function pathFault(path: string): PathFault | null {
  const names = path.split('/');
  if (path.includes('\0')) return fault('contains_nul', 'must not hold the character U+0000');
  if (names.includes('..')) return fault('path_outside', 'must not hold the name ..');
  if (path.startsWith('/')) return fault('path_outside', 'must not begin with /');
  if (names.some((name) => name === '' || name === '.'))
    return fault('path_not_plain', 'must hold names parted by one /, none of them .');
  if (!path.isWellFormed()) return fault('lone_surrogate', 'must not hold half of a surrogate pair');
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    return fault('too_big', `must not have more than ${MAX_PATH_BYTES} bytes`);
  if (names.some((name) => Buffer.byteLength(name) > MAX_NAME_BYTES))
    return fault('too_big', `must not hold a name of more than ${MAX_NAME_BYTES} bytes`);
  if (names.length > MAX_DEPTH)
    return fault('too_deep', `must not lie more than ${MAX_DEPTH - 1} folders deep`);
  return null;
}

const fault = (code: PathFault['code'], message: string): PathFault => ({ code, message });
