import { MAX_TEXT_LENGTH } from './engine-event.js';

const MAX_RAW_LENGTH = 64 * 1024;

/** Cuts a text at MAX_TEXT_LENGTH, never inside a surrogate pair. */
export function cut(text: string): { text: string; truncated: boolean } {
  if (text.length <= MAX_TEXT_LENGTH) return { text, truncated: false };
  const last = text.charCodeAt(MAX_TEXT_LENGTH - 1);
  const isHighSurrogate = last >= 0xd800 && last <= 0xdbff;
  return { text: text.slice(0, isHighSurrogate ? MAX_TEXT_LENGTH - 1 : MAX_TEXT_LENGTH), truncated: true };
}

/** A line as it is; its kind alone where it is too long to keep. */
export function smallEnough(line: unknown): unknown {
  if (JSON.stringify({ line }).length <= MAX_RAW_LENGTH) return line;
  const { type = null, subtype = null } = Object(line) as { type?: unknown; subtype?: unknown };
  return { type, subtype, truncated: true };
}

/** The input of a tool call as it is, or `{ truncated: true }` where it is longer than MAX_TEXT_LENGTH. */
export function boundedInput(input: unknown): unknown {
  return JSON.stringify({ input }).length <= MAX_TEXT_LENGTH ? input : { truncated: true };
}
