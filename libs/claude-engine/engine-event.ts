/** Text, tool results and results longer than this (UTF-16 code units) are cut, and say so. */
export const MAX_TEXT_LENGTH = 1024 * 1024;

/** Why a run failed. A subset of the error codes of a process; what they mean to a client is the caller's table. */
export const ENGINE_ERROR_CODES = [
  'timeout',
  'stalled',
  'engine_unavailable',
  'upstream_authentication_failed',
  'upstream_rate_limited',
  'upstream_overloaded',
  'upstream_invalid_request',
  'max_turns_reached',
  'workspace_full',
  'run_budget_reached',
  'output_schema_mismatch',
  'output_too_large',
  'internal',
] as const;
export type EngineErrorCode = (typeof ENGINE_ERROR_CODES)[number];

export interface EngineError {
  code: EngineErrorCode;
  /** A sentence fit for the client: no path, no stderr, no key. */
  detail: string;
  /** Whether the same request may succeed later. */
  retryable: boolean;
  /** How long to wait before that, where the Messages API said so. */
  retryAfterMs: number | null;
}

export type StopReason =
  'end_turn' | 'max_tokens' | 'max_turns' | 'refusal' | 'interrupted' | 'run_budget_reached';

export interface Usage {
  inputTokens: number;
  outputTokens: number;
  cacheReadInputTokens: number;
  cacheCreationInputTokens: number;
}

/** A tool call that was refused. The run goes on without it. */
export interface PermissionDenial {
  toolUseId: string;
  name: string;
  input: unknown;
}

/** What a run that did not complete had used by then; null where nobody told. */
export interface PartialOutcome {
  stopReason: StopReason | null;
  usage: Usage | null;
  costUsd: number | null;
  numTurns: number | null;
  model: string | null;
  permissionDenials: PermissionDenial[];
}

export interface CompletedEnding {
  kind: 'completed';
  /** The last message's text. */
  result: string;
  /** Whether `result` was cut at MAX_TEXT_LENGTH. */
  truncated: boolean;
  /** What the request's `outputSchema` asked for; null where it has none. */
  structuredResult: unknown;
  stopReason: StopReason;
  numTurns: number;
  usage: Usage;
  /** An estimate by the CLI's price table, US dollars, of this run alone. */
  costUsd: number;
  permissionDenials: PermissionDenial[];
  model: string | null;
}
export type FailedEnding = {
  kind: 'failed';
  error: EngineError;
  /** It was the server that ended it, which shuts down or has lost touch: neither the CLI nor the request is to blame. */
  isByServer?: true;
  /** The engine could not be started, and has asked nobody: another engine may run it. */
  isUnstarted?: boolean;
} & PartialOutcome;
export type CancelledEnding = { kind: 'cancelled' } & PartialOutcome;
export type Ending = CompletedEnding | FailedEnding | CancelledEnding;

/** The run has begun: the CLI is up and about to ask the model. */
export interface StartedEvent {
  type: 'started';
  engine: 'cli' | 'api';
  model: string | null;
  cliVersion: string | null;
  cliSessionId: string | null;
}
/** A piece of a message's text, in order. */
export interface TextEvent {
  type: 'text';
  messageId: string;
  text: string;
}
/** A piece of a message's thinking, in order. */
export interface ThinkingEvent {
  type: 'thinking';
  messageId: string;
  text: string;
}
/** A message is whole; `text` is what its text events said, joined. Not sent for a message without text. */
export interface MessageEvent {
  type: 'message';
  messageId: string;
  /** Counts the run's messages from 1, those without text too. */
  turn: number;
  text: string;
  /** Whether `text` was cut at MAX_TEXT_LENGTH. */
  truncated: boolean;
}
export interface ToolUseEvent {
  type: 'tool_use';
  toolUseId: string;
  name: string;
  input: unknown;
}
export interface ToolResultEvent {
  type: 'tool_result';
  toolUseId: string;
  /** Text only; an image or a document is named in brackets, such as `[image/png]`. */
  content: string;
  isError: boolean;
  /** Whether `content` was cut at MAX_TEXT_LENGTH. */
  truncated: boolean;
}
/** The CLI has read a further message of the user: what the model says from now on may answer it. */
export interface UserMessageEvent {
  type: 'user_message';
  messageId: string;
  text: string;
  /** The conversation held it already when the run began: a run before had read it. */
  isKept: boolean;
}
/** The run's tokens so far, all messages together: the last one counts. */
export type UsageEvent = { type: 'usage' } & Usage;
/** The Messages API failed and the CLI tries again. A message that was open is void. */
export interface RetryingEvent {
  type: 'retrying';
  /** Counts from 1. */
  attempt: number;
  code: EngineErrorCode;
  /** ISO 8601 UTC. */
  retryAt: string | null;
}
/** A line of the CLI that no other event stands for. */
export interface RawEvent {
  type: 'raw';
  line: unknown;
}
export interface EndedEvent {
  type: 'ended';
  ending: Ending;
}

export type EngineEvent =
  | StartedEvent
  | TextEvent
  | ThinkingEvent
  | MessageEvent
  | ToolUseEvent
  | ToolResultEvent
  | UserMessageEvent
  | UsageEvent
  | RetryingEvent
  | RawEvent
  | EndedEvent;
