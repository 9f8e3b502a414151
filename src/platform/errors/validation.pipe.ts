import { Injectable, StandardSchemaValidationPipe } from '@nestjs/common';
import { z } from 'zod';
import { AppError } from './app-error.js';
import type { ErrorIssue } from './errors.schemas.js';

const MAX_ISSUES = 20;
const MAX_DEPTH = 64;
const MAX_VALUES = 10_000;
/** What the caller sent, a name for instance, is not sent back whole. */
const MAX_TEXT = 200;

/** Checks bodies, parameters, queries and socket messages against the zod schema that the handler names. */
@Injectable()
export class ValidationPipe extends StandardSchemaValidationPipe {
  // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the signature is that of Nest
  protected override async validate<T>(
    value: unknown,
    schema: StandardSchema,
    options?: Record<string, unknown>,
  ): Promise<{ value: T }> {
    const result = await super.validate<T>(value, schema, options);
    if (result.issues) throw toValidationError(result.issues as readonly z.core.$ZodIssue[]);
    return result;
  }

  // Nest would take such keys out without a word.
  protected override stripProtoKeys(value: unknown): void {
    refuseOddShapes(value, []);
  }
}

type StandardSchema = Parameters<StandardSchemaValidationPipe['validate']>[1];

/** What no schema says: a record skips the key `__proto__`, and size costs whoever walks the value. */
function refuseOddShapes(value: unknown, path: readonly string[], budget = { values: MAX_VALUES }): void {
  if (typeof value !== 'object' || value === null) return;
  if (ArrayBuffer.isView(value)) throw refusal('binary', 'must not be binary');
  if (path.length > MAX_DEPTH) throw refusal('too_deep', `must not be nested more than ${MAX_DEPTH} deep`);
  if (Object.hasOwn(value, '__proto__')) throw validationError([unknownField([...path, '__proto__'])]);
  for (const key in value) {
    budget.values -= 1;
    if (budget.values < 0) throw refusal('too_many', `must not hold more than ${MAX_VALUES} values`);
    const inner = (value as Record<string, unknown>)[key];
    if (typeof inner === 'object') refuseOddShapes(inner, [...path, key], budget);
  }
}

const refusal = (code: string, detail: string) => validationError([{ pointer: '', code, detail }]);

/** A schema may give an issue a code of its own: `ctx.addIssue({ params: { code: 'contains_nul' } })`. */
function toValidationError(issues: readonly z.core.$ZodIssue[]): AppError {
  return validationError(issues.flatMap(toErrorIssues));
}

function validationError(issues: ErrorIssue[]): AppError {
  const errors = issues.slice(0, MAX_ISSUES).map(({ pointer, code, detail }) => ({
    pointer: shortened(pointer),
    code,
    detail: shortened(detail),
  }));
  const detail = errors.map(({ pointer, detail: text }) => `${pointer || 'The value'}: ${text}`).join('; ');
  return new AppError('validation_failed', detail, { errors });
}

function toErrorIssues(issue: z.core.$ZodIssue): ErrorIssue[] {
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownField([...issue.path, key]));
  const custom = issue.code === 'custom' ? (issue.params?.code as string | undefined) : undefined;
  return [{ pointer: pointerTo(issue.path), code: custom ?? issue.code, detail: issue.message }];
}

const shortened = (text: string) =>
  text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT).toWellFormed()}…`;

const unknownField = (path: readonly PropertyKey[]): ErrorIssue => ({
  pointer: pointerTo(path),
  code: 'unknown_field',
  detail: 'there is no such field',
});

// RFC 6901
const pointerTo = (path: readonly PropertyKey[]) =>
  path.map((key) => `/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
