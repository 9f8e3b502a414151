import type { Shared } from './anthropic.js';
import { newId } from './ids.js';
import { splitText } from './split-text.js';

/** Tokens, as the API counts them: `inputTokens` excludes what the cache read or wrote. */
export interface Usage {
  inputTokens: number;
  outputTokens: number;
  cacheReadTokens: number;
  cacheCreationTokens: number;
}

export type StopReason = 'end_turn' | 'max_tokens' | 'stop_sequence' | 'tool_use' | 'pause_turn' | 'refusal';

/** `error.type` of the API's error bodies. The SDK's list lacks the 413's. */
export type ErrorType = Shared.ErrorType | 'request_too_large';

/** A content block; `deltas` are the pieces in which it is streamed. */
export type AnswerBlock =
  | { kind: 'thinking'; deltas: readonly string[] }
  | { kind: 'text'; deltas: readonly string[] }
  | { kind: 'tool_use'; id: string; name: string; input: Readonly<Record<string, unknown>> };

/** Where an answer breaks off: after that many deltas, counted over all its blocks, or at its end if it has fewer. */
type Break =
  | { kind: 'cut'; afterDeltas: number }
  | { kind: 'error'; afterDeltas: number; type: ErrorType; message: string };

/** A message of the assistant. */
export interface MessageAnswer {
  kind: 'message';
  blocks: readonly AnswerBlock[];
  stopReason: StopReason;
  /** Counts left out are estimated at four bytes a token; the cache counts are then 0. */
  usage: Readonly<Partial<Usage>>;
  /** Milliseconds between `message_start` and the first delta. */
  delayMs: number;
  /** Milliseconds between two deltas. */
  deltaMs: number;
  break: Break | null;
}

/** An HTTP error in place of a message. */
export interface ErrorAnswer {
  kind: 'error';
  /** 400 to 599. */
  status: number;
  type: ErrorType;
  message: string;
  /** Seconds, sent as the header `retry-after`. */
  retryAfterS: number | null;
}

/** No answer at all, not even headers, until the client leaves. */
export interface HangAnswer {
  kind: 'hang';
}

export type Answer = MessageAnswer | ErrorAnswer | HangAnswer;

export interface MessageOptions {
  /** A thinking block before the rest. */
  thinking?: string | readonly string[];
  stopReason?: StopReason;
  usage?: Partial<Usage>;
  /** Milliseconds between `message_start` and the first delta; 0 unless told. */
  delayMs?: number;
  /** Milliseconds between two deltas; 0 unless told. */
  deltaMs?: number;
}

/** Answers with text: an array is streamed piece by piece, a string is split into words. */
export function textAnswer(text: string | readonly string[], options: MessageOptions = {}): MessageAnswer {
  return message([{ kind: 'text', deltas: asDeltas(text) }], options, 'end_turn');
}

/** Asks for a tool. `id` is made up unless given; `text` is what the assistant says before it. */
export function toolAnswer(
  name: string,
  input: Readonly<Record<string, unknown>>,
  options: MessageOptions & { id?: string; text?: string | readonly string[] } = {},
): MessageAnswer {
  const said: AnswerBlock[] =
    options.text === undefined ? [] : [{ kind: 'text', deltas: asDeltas(options.text) }];
  const asked: AnswerBlock = { kind: 'tool_use', id: options.id ?? newId('toolu'), name, input };
  return message([...said, asked], options, 'tool_use');
}

/**
 * Answers with an HTTP error of the type that the API pairs with `status` (400 to 599).
 * A 429 says `retry-after: 1` unless told otherwise, as the API always names a time.
 */
export function errorAnswer(
  status: number,
  options: { type?: ErrorType; message?: string; retryAfterS?: number } = {},
): ErrorAnswer {
  const type = options.type ?? errorTypeOf(status);
  return {
    kind: 'error',
    status,
    type,
    message: options.message ?? messageOf(type),
    retryAfterS: options.retryAfterS ?? (status === 429 ? 1 : null),
  };
}

/** Leaves the request unanswered until the client leaves. */
export function hangAnswer(): HangAnswer {
  return { kind: 'hang' };
}

/** The same answer, its connection destroyed after that many deltas (or before the end of a shorter one). */
export function cutAfter(afterDeltas: number, answer: MessageAnswer): MessageAnswer {
  return { ...answer, break: { kind: 'cut', afterDeltas } };
}

/** The same answer, ended by an `error` event after that many deltas. Not streamed, it is an HTTP error of that type. */
export function errorAfter(afterDeltas: number, type: ErrorType, answer: MessageAnswer): MessageAnswer {
  return { ...answer, break: { kind: 'error', afterDeltas, type, message: messageOf(type) } };
}

const ERROR_TYPES: Readonly<Record<number, ErrorType>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  409: 'conflict_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  500: 'api_error',
  504: 'timeout_error',
  529: 'overloaded_error',
};

/** Source: the table "HTTP errors" of Anthropic's API documentation. */
function errorTypeOf(status: number): ErrorType {
  return ERROR_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error');
}

/** As the API words them. */
const ERROR_MESSAGES: Readonly<Partial<Record<ErrorType, string>>> = {
  authentication_error: 'invalid x-api-key',
  api_error: 'Internal server error',
  overloaded_error: 'Overloaded',
};

function messageOf(type: ErrorType): string {
  return ERROR_MESSAGES[type] ?? `Scripted ${type}.`;
}

/** The HTTP status that the API pairs with an error type; 500 for a type that has none. */
export function statusOf(type: ErrorType): number {
  const pair = Object.entries(ERROR_TYPES).find(([, paired]) => paired === type);
  return pair === undefined ? 500 : Number(pair[0]);
}

/** Whether a word is one of the error types that have a status of their own. */
export function isErrorType(word: string): word is ErrorType {
  return Object.values(ERROR_TYPES).some((type) => type === word);
}

function asDeltas(text: string | readonly string[]): readonly string[] {
  return typeof text === 'string' ? splitText(text) : text;
}

function message(
  blocks: readonly AnswerBlock[],
  options: MessageOptions,
  stopReason: StopReason,
): MessageAnswer {
  const thought: AnswerBlock[] =
    options.thinking === undefined ? [] : [{ kind: 'thinking', deltas: asDeltas(options.thinking) }];
  return {
    kind: 'message',
    blocks: [...thought, ...blocks],
    stopReason: options.stopReason ?? stopReason,
    usage: options.usage ?? {},
    delayMs: options.delayMs ?? 0,
    deltaMs: options.deltaMs ?? 0,
    break: null,
  };
}
