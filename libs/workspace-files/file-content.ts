import { type FileHandle } from 'node:fs/promises';

const CHUNK_BYTES = 64 * 1024;

/** The first bytes of a file, fewer where it has become shorter meanwhile. Does not close it. */
export async function* contentOf(file: FileHandle, size: number): AsyncGenerator<Buffer, void, undefined> {
  let position = 0;
  while (position < size) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - position));
    const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield chunk.subarray(0, bytesRead);
  }
}
