import { randomBytes } from 'node:crypto';

/** A new id in the API's manner: `msg_`, `toolu_` or `req_`, then 24 characters. */
export function newId(prefix: 'msg' | 'toolu' | 'req'): string {
  return `${prefix}_${randomBytes(12).toString('hex')}`;
}
