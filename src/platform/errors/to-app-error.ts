import { HttpException } from '@nestjs/common';
import { isStoreOutage } from '../prisma/database-failure.js';
import { AppError } from './app-error.js';
import type { ErrorCode } from './error-catalogue.js';

const RETRY_AFTER_OUTAGE_MS = 5_000;
const NOT_JSON = 'The body is not valid JSON.';

// Fastify's own error codes: https://fastify.dev/docs/v5.12.x/Reference/Errors/
const FASTIFY_ERRORS: Record<string, [ErrorCode, string]> = {
  FST_ERR_MAX_PARAM_LENGTH: ['route_not_found', 'There is no such route.'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['invalid_json', 'The body is empty.'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['invalid_json', NOT_JSON],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['media_type_unsupported', 'Send the body as application/json.'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['body_too_large', 'A body may have 4 MiB.'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['bad_request', 'The body is not as long as Content-Length says.'],
};

const BY_STATUS: Record<number, ErrorCode> = {
  400: 'bad_request',
  401: 'unauthenticated',
  403: 'forbidden',
  404: 'route_not_found',
  406: 'not_acceptable',
  413: 'body_too_large',
  415: 'media_type_unsupported',
  503: 'unavailable',
};

/** Gives whatever was thrown its place in the catalogue. What has none is `internal`: the filter logs it whole. */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  const known = fromHttp(
    thrown instanceof HttpException && thrown.cause !== undefined ? thrown.cause : thrown,
  );
  if (known) return known;
  if (isStoreOutage(thrown)) {
    return new AppError('unavailable', 'A store that the server needs does not answer.', {
      cause: thrown,
      retryAfterMs: RETRY_AFTER_OUTAGE_MS,
    });
  }
  return new AppError('internal', 'The server failed. The request id finds it in the log.', {
    cause: thrown,
  });
}

function fromHttp(thrown: unknown): AppError | null {
  if (!(thrown instanceof Error)) return null;
  const { code, statusCode } = thrown as { code?: unknown; statusCode?: unknown };
  const fastify = typeof code === 'string' ? FASTIFY_ERRORS[code] : undefined;
  if (fastify) return new AppError(fastify[0], fastify[1], { cause: thrown });
  // Fastify's parser of JSON bodies throws plain SyntaxErrors with a status.
  if (thrown instanceof SyntaxError && statusCode === 400)
    return new AppError('invalid_json', NOT_JSON, { cause: thrown });
  const status = thrown instanceof HttpException ? thrown.getStatus() : statusCode;
  const byStatus = typeof status === 'number' ? BY_STATUS[status] : undefined;
  return byStatus ? new AppError(byStatus, thrown.message, { cause: thrown }) : null;
}
