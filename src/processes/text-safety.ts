const REPLACEMENT = '\uFFFD';

/** PostgreSQL's text and jsonb hold neither U+0000 nor half a surrogate pair: both become U+FFFD, in a whole tree. */
export function makeStorable<T>(value: T): T {
  if (typeof value === 'string') return storableText(value) as T;
  if (Array.isArray(value)) return value.map(makeStorable) as T;
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [storableText(key), makeStorable(inner as unknown)]),
  ) as T;
}

/** Whether `makeStorable` would change nothing of what this JSON says: just those two are written as `\u0000` and `\ud…`. */
export const isStorable = (json: string) => !/\\u(?:0000|d[89a-f])/i.test(json);

const storableText = (text: string) => text.replaceAll('\0', REPLACEMENT).toWellFormed();

/** Text that may be cut between the halves of a surrogate pair: the first half, which waits for the other, apart. */
export function splitHalfPair(text: string): { whole: string; half: string } {
  const last = text.charCodeAt(text.length - 1);
  const isHigh = last >= 0xd800 && last <= 0xdbff;
  return isHigh ? { whole: text.slice(0, -1), half: text.slice(-1) } : { whole: text, half: '' };
}
