import { createHash } from 'node:crypto';
import { type ExecuteRequest, ExecuteRequestSchema } from './processes.schemas.js';

const DEFAULTS: Partial<Record<string, unknown>> = ExecuteRequestSchema.parse({ prompt: 'any' });

/**
 * SHA-256 of what a request asks for. The order of its fields makes no difference, nor does it whether a default is written
 * out. What is left at its default is left out, so that a new version with another field does not take a repeated request for
 * a different one.
 */
export function hashOf({ prompt, ...options }: ExecuteRequest): Uint8Array<ArrayBuffer> {
  const chosen = Object.entries(options).filter(
    ([name, value]) => canonical(value) !== canonical(DEFAULTS[name]),
  );
  const text = canonical({ prompt, ...Object.fromEntries(chosen) });
  return new Uint8Array(createHash('sha256').update(text).digest());
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === undefined) return 'undefined';
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value)
    .filter(([, inner]) => inner !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([name, inner]) => `${JSON.stringify(name)}:${canonical(inner)}`).join()}}`;
}
