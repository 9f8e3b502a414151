import { ERROR_CATALOGUE, type ErrorCode } from './error-catalogue.js';
import type { ErrorIssue, Problem } from './errors.schemas.js';

/** An error that the caller can act upon. Everything else that is thrown is `internal`. */
export class AppError extends Error {
  override readonly name = 'AppError';

  constructor(
    readonly code: ErrorCode,
    /** For the caller's eyes: no path, SQL, stack or secret. */
    readonly detail: string,
    readonly more: { errors?: ErrorIssue[]; retryAfterMs?: number; cause?: unknown } = {},
  ) {
    super(`${code}: ${detail}`, { cause: more.cause });
  }
}

export function problemOf(
  error: AppError,
  where: { instance: string | null; requestId: string | null },
): Problem {
  const { status, title, retryable } = ERROR_CATALOGUE[error.code];
  return {
    type: `urn:claude-runner:error:${error.code}`,
    title,
    status,
    detail: error.detail,
    instance: where.instance,
    code: error.code,
    retryable,
    retryAfterMs: error.more.retryAfterMs ?? null,
    requestId: where.requestId,
    errors: error.more.errors ?? [],
  };
}
