import { applyDecorators, HttpCode, UseGuards } from '@nestjs/common';
import { ApiHeader, ApiOperation, ApiResponse } from '@nestjs/swagger';
import type { z } from 'zod';
import { ERROR_CATALOGUE, type ErrorCode } from '../errors/error-catalogue.js';
import { AcceptableGuard } from './acceptable.guard.js';

interface OperationOptions {
  /** `operationId`: the name of the method in generated clients. */
  id: string;
  summary: string;
  description?: string;
  /** By status; the first is the one that Nest answers with unless the handler says otherwise. */
  answers: Record<
    number,
    { description: string; schema?: z.ZodType; mediaType?: string; headers?: string[] }
  >;
  /** What it answers with as well where that is asked for; the document does not tell. */
  alsoAnswersWith?: string[];
  errors?: ErrorCode[];
  /** What each header that the route reads means. */
  headers?: Record<string, string>;
  isPublic?: boolean;
}

const JSON_TYPE = 'application/json';
const CALLERS = [{ bearer: [] }];
// Credentials are not asked for, and checked where they come.
const ANYONE = [{}, ...CALLERS];

const ERRORS_OF_EVERY_ROUTE: ErrorCode[] = [
  'bad_request',
  'validation_failed',
  'internal',
  'unavailable',
  'draining',
];
const ERRORS_OF_CLOSED_ROUTES: ErrorCode[] = ['unauthenticated', 'forbidden'];

/** Says in the OpenAPI document what a route does, answers and refuses, and refuses who accepts none of its answers. */
export function Operation({
  id,
  summary,
  description,
  answers,
  alsoAnswersWith = [],
  errors = [],
  headers = {},
  isPublic = false,
}: OperationOptions) {
  const [status = 200] = Object.keys(answers).map(Number);
  const mediaTypes = [...mediaTypesOf(answers), ...alsoAnswersWith];
  return applyDecorators(
    HttpCode(status),
    ApiOperation({
      operationId: id,
      summary,
      description: description ?? summary,
      security: isPublic ? ANYONE : CALLERS,
    }),
    ...Object.entries(answers).map(([code, answer]) => ApiResponse(toResponse(Number(code), answer))),
    ...problems([
      ...ERRORS_OF_EVERY_ROUTE,
      ...(isPublic ? [] : ERRORS_OF_CLOSED_ROUTES),
      ...(mediaTypes.length > 0 ? (['not_acceptable'] as const) : []),
      ...errors,
    ]),
    // An answer without a body suits everybody.
    ...(mediaTypes.length > 0 ? [UseGuards(new AcceptableGuard(mediaTypes))] : []),
    ...Object.entries(headers).map(([name, text]) =>
      ApiHeader({ name, description: text, required: false, schema: { type: 'string' } }),
    ),
  );
}

function mediaTypesOf(answers: OperationOptions['answers']): string[] {
  const types = Object.values(answers).flatMap(
    ({ mediaType, schema }) => mediaType ?? (schema ? JSON_TYPE : []),
  );
  return [...new Set(types)];
}

function toResponse(
  status: number,
  { description, schema, mediaType, headers = [] }: OperationOptions['answers'][number],
) {
  const common = {
    status,
    description,
    headers: Object.fromEntries(headers.map((name) => [name, { schema: { type: 'string' as const } }])),
  };
  if (mediaType !== undefined)
    return { ...common, content: { [mediaType]: { schema: schemaOf(mediaType) } } };
  return schema ? { ...common, standardSchema: schema } : common;
}

const schemaOf = (mediaType: string) => ({
  type: 'string' as const,
  ...(!mediaType.startsWith('text/') && { format: 'binary' }),
});

function problems(codes: ErrorCode[]): MethodDecorator[] {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of codes) {
    const { status } = ERROR_CATALOGUE[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return [...byStatus].map(([status, kinds]) =>
    ApiResponse({
      status,
      description: kinds.map((code) => `\`${code}\`: ${ERROR_CATALOGUE[code].title}`).join('. '),
      content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
    }),
  );
}
