import { type ResultLine } from './cli-line.js';
import { type EngineError, type EngineErrorCode } from './engine-event.js';

const DETAILS: Record<EngineErrorCode, string> = {
  timeout: 'The run took longer than its timeout and was stopped.',
  stalled: 'Claude gave no sign of life for too long and was stopped.',
  engine_unavailable: 'The Claude CLI could not be started.',
  upstream_authentication_failed: 'The Messages API refused the API key.',
  upstream_rate_limited: 'The Messages API refused the request because of its rate limit.',
  upstream_overloaded: 'The Messages API is overloaded or cannot be reached.',
  upstream_invalid_request: 'The Messages API refused the request as invalid.',
  max_turns_reached: 'Claude had not finished when the limit of turns was reached.',
  workspace_full: 'The workspace holds more than it may. Delete files of it to go on.',
  run_budget_reached: 'The run has cost what it might cost.',
  output_schema_mismatch: 'Claude gave no output that matches the schema.',
  output_too_large: 'The run said more than is kept of one run, and was stopped.',
  internal: 'The Claude CLI failed.',
};
const RETRYABLE: ReadonlySet<EngineErrorCode> = new Set([
  'stalled',
  'engine_unavailable',
  'upstream_rate_limited',
  'upstream_overloaded',
]);
const MAX_DETAIL_LENGTH = 500;
const MAX_PROBLEM_LENGTH = 300;

/** An error as a client may see it. `detail` replaces the code's standing sentence. */
export function engineError(
  code: EngineErrorCode,
  { detail = DETAILS[code], retryable = RETRYABLE.has(code) } = {},
): EngineError {
  return { code, detail, retryable, retryAfterMs: null };
}

/** The code of an HTTP status of the Messages API. Null: there was no answer. */
export function codeOfStatus(status: number | null): EngineErrorCode {
  if (status === null || status >= 500) return 'upstream_overloaded';
  if (status === 401 || status === 403) return 'upstream_authentication_failed';
  if (status === 429) return 'upstream_rate_limited';
  return status === 408 ? 'upstream_overloaded' : 'upstream_invalid_request';
}

/** The CLI's words for a failure without an HTTP status (`SDKAssistantMessageError`). */
const CODES_OF_WORDS = new Map<string, EngineErrorCode>([
  ['authentication_failed', 'upstream_authentication_failed'],
  ['oauth_org_not_allowed', 'upstream_authentication_failed'],
  ['account_on_hold', 'upstream_authentication_failed'],
  ['verification_required', 'upstream_authentication_failed'],
  ['billing_error', 'upstream_authentication_failed'],
  ['rate_limit', 'upstream_rate_limited'],
  ['overloaded', 'upstream_overloaded'],
  ['server_error', 'upstream_overloaded'],
  ['invalid_request', 'upstream_invalid_request'],
  ['model_not_found', 'upstream_invalid_request'],
  ['prompt_too_long', 'upstream_invalid_request'],
  ['image_error', 'upstream_invalid_request'],
]);

/**
 * Why a result is a failure. `is_error` alone decides that it is one: its subtype may well say `success`.
 * @param word the error word of the CLI's last own message, if there was one
 */
export function failureOf(line: ResultLine, word: string | null): EngineError {
  if (line.subtype === 'error_max_turns') return engineError('max_turns_reached');
  if (line.subtype === 'error_max_budget_usd') return engineError('run_budget_reached');
  if (line.subtype === 'error_max_structured_output_retries') return mismatch(lastErrorOf(line));
  if (line.startup_failure_reason !== undefined) return engineError('engine_unavailable');
  return errorOf(codeOf(line, word), /^API Error: \d{3} (.+)$/s.exec(line.result ?? '')?.[1] ?? '');
}

/**
 * The same for an answer of the Messages API itself.
 * @param answer.status null where there was no answer
 * @param answer.type of the error, in the API's words; an error in a stream has no status
 */
export function failureOfAnswer({
  status,
  type,
  message,
}: {
  status: number | null;
  type: string;
  message: string;
}): EngineError {
  const code = status === null ? (CODES_OF_TYPES.get(type) ?? 'upstream_overloaded') : codeOfStatus(status);
  return errorOf(code, message);
}

/** The Messages API's words for an error that comes in a stream. */
const CODES_OF_TYPES = new Map<string, EngineErrorCode>([
  ['authentication_error', 'upstream_authentication_failed'],
  ['permission_error', 'upstream_authentication_failed'],
  ['billing_error', 'upstream_authentication_failed'],
  ['rate_limit_error', 'upstream_rate_limited'],
  ['invalid_request_error', 'upstream_invalid_request'],
  ['not_found_error', 'upstream_invalid_request'],
  ['request_too_large', 'upstream_invalid_request'],
]);

/** @param said by the API; told to the client where it is about the request */
function errorOf(code: EngineErrorCode, said: string): EngineError {
  const told = code === 'upstream_invalid_request' ? fitForClient(said) : '';
  return engineError(code, told ? { detail: `${DETAILS[code]} ${told}` } : {});
}

/** @param problem what is wrong with the output */
export function mismatch(problem: string): EngineError {
  const detail = `Claude gave no output that matches the schema: ${problem.slice(0, MAX_PROBLEM_LENGTH)}`;
  return engineError('output_schema_mismatch', { detail });
}

const lastErrorOf = ({ errors = [] }: ResultLine) =>
  /last StructuredOutput error: (?:Output does not match required schema: )?(.+)$/s.exec(
    errors.at(-1) ?? '',
  )?.[1] ?? 'it gave none.';

function codeOf(line: ResultLine, word: string | null): EngineErrorCode {
  if (typeof line.api_error_status === 'number') return codeOfStatus(line.api_error_status);
  const known = CODES_OF_WORDS.get(line.terminal_reason ?? '') ?? CODES_OF_WORDS.get(word ?? '');
  if (known) return known;
  return line.terminal_reason === 'api_error' ? 'upstream_overloaded' : 'internal';
}

/** What the API said about the request, without addresses and paths of ours. */
function fitForClient(said: string): string {
  return said
    .replaceAll(/\(?\b(?:https?:\/\/)?[\w.-]+:\d{2,5}\b\)?/g, '')
    .replaceAll(/(?<=^|[\s'"(])\/[\w./-]{2,}/g, '')
    .trim()
    .slice(0, MAX_DETAIL_LENGTH);
}
