import type { Logger } from '@nestjs/common';
import type { AppError } from './app-error.js';
import { ERROR_CATALOGUE } from './error-catalogue.js';

/**
 * Tells the operator of an error that is the server's. What it said on purpose, while it shuts down for instance, has no cause
 * and is no error of its own.
 */
export function logProblem(logger: Logger, error: AppError, requestId: string): void {
  if (ERROR_CATALOGUE[error.code].status < 500) return;
  const { code, detail, cause } = error;
  if (cause === undefined && code !== 'internal') logger.log({ requestId, code }, detail);
  else logger.error({ err: cause ?? error, requestId, code });
}
