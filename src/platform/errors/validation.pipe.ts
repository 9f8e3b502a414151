import { Injectable, StandardSchemaValidationPipe } from '@nestjs/common';
import type { z } from 'zod';
import { AppError } from './app-error.js';
import type { ErrorIssue } from './errors.schemas.js';

const MAX_ISSUES = 20;

/** Checks bodies, parameters, queries and socket messages against the zod schema that the handler names. */
@Injectable()
export class ValidationPipe extends StandardSchemaValidationPipe {
  constructor() {
    super({ exceptionFactory: (issues) => toValidationError(issues as readonly z.core.$ZodIssue[]) });
  }
}

/** A schema may give an issue another code of the catalogue: `ctx.addIssue({ params: { code: 'not_supported_yet' } })`. */
function toValidationError(issues: readonly z.core.$ZodIssue[]): AppError {
  const errors = issues.flatMap(toErrorIssues).slice(0, MAX_ISSUES);
  const detail = errors.map(({ pointer, detail: text }) => `${pointer || 'The value'}: ${text}`).join('; ');
  const unsupported = errors.length > 0 && errors.every(({ code }) => code === 'not_supported_yet');
  return new AppError(unsupported ? 'not_supported_yet' : 'validation_failed', detail, { errors });
}

function toErrorIssues(issue: z.core.$ZodIssue): ErrorIssue[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      pointer: pointerTo([...issue.path, key]),
      code: 'unknown_field',
      detail: 'there is no such field',
    }));
  }
  const custom = issue.code === 'custom' ? (issue.params?.code as string | undefined) : undefined;
  return [{ pointer: pointerTo(issue.path), code: custom ?? issue.code, detail: issue.message }];
}

// RFC 6901
const pointerTo = (path: readonly PropertyKey[]) =>
  path.map((key) => `/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
