import { type IncomingHttpHeaders } from 'node:http';

const LIMITS = ['requests', 'tokens', 'input-tokens', 'output-tokens'];

/**
 * When the Messages API will take requests again, by the headers of a 429: in milliseconds since 1970, null where they do not
 * say. `retry-after` is its word; without it, the latest reset of a limit that has nothing left.
 */
export function rateLimitReset(headers: IncomingHttpHeaders, now = Date.now()): number | null {
  const asked = headers['retry-after'];
  if (asked !== undefined) return readRetryAfter(asked, now);
  const unified = Number(headerOf(headers, 'unified-reset') ?? Number.NaN) * 1000;
  const exhausted = LIMITS.filter((limit) => headerOf(headers, `${limit}-remaining`) === '0');
  const resets = exhausted.map((limit) => Date.parse(headerOf(headers, `${limit}-reset`) ?? ''));
  const known = [unified, ...resets].filter((at) => !Number.isNaN(at));
  return known.length === 0 ? null : Math.max(...known);
}

/** Seconds, or a date: RFC 9110, 10.2.3. */
function readRetryAfter(value: string, now: number): number | null {
  const at = /^\d+(?:\.\d+)?$/.test(value) ? now + Number(value) * 1000 : Date.parse(value);
  return Number.isNaN(at) ? null : at;
}

function headerOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[`anthropic-ratelimit-${name}`];
  return Array.isArray(value) ? value[0] : value;
}
