import { createHash, randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';

// A typed prefix and a checksum let a secret scanner tell a real key from a look-alike without asking anyone.
const PATTERN = /^(crk_[0-9a-f]{12})_([\w-]{32})([0-9a-f]{8})$/;
const ID_BYTES = 6;
const SECRET_BYTES = 24;

export interface NewApiKey {
  key: string;
  /** The part that may be shown. */
  prefix: string;
  hash: Buffer<ArrayBuffer>;
}

/** `crk_<id>_<secret><checksum>`, with 192 random bits of secret. */
export function makeApiKey(): NewApiKey {
  const prefix = `crk_${randomBytes(ID_BYTES).toString('hex')}`;
  const body = `${prefix}_${randomBytes(SECRET_BYTES).toString('base64url')}`;
  const key = body + checksum(body);
  return { key, prefix, hash: hashApiKey(key) };
}

/** The part of a key that may be shown. */
export const prefixOf = (key: string): string => PATTERN.exec(key)?.[1] ?? '';

/** Whether it is written as a key is, checksum included. It may still be nobody's. */
export function isApiKey(text: string): boolean {
  const match = PATTERN.exec(text);
  return match !== null && checksum(`${match[1] ?? ''}_${match[2] ?? ''}`) === match[3];
}

/** SHA-256: a key has so much chance in it that a slow hash would protect nothing. */
export const hashApiKey = (key: string): Buffer<ArrayBuffer> => createHash('sha256').update(key).digest();

const checksum = (body: string) => crc32(body).toString(16).padStart(8, '0');
