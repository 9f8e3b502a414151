import { ForbiddenException, HttpException, NotFoundException } from '@nestjs/common';
import fc from 'fast-check';
import { AppError, problemOf } from './app-error.js';
import { ERROR_CATALOGUE, type ErrorCode } from './error-catalogue.js';
import { ProblemSchema } from './errors.schemas.js';
import { toAppError } from './to-app-error.js';

const WHERE = { instance: '/here', requestId: 'r-1' };
const withCode = (code: string, more: object = {}) =>
  Object.assign(new Error('secret /etc/x'), { code, ...more });

describe('toAppError', () => {
  it('leaves what is in the catalogue as it is', () => {
    const error = new AppError('process_not_found', 'There is no process 1.');
    expect(toAppError(error)).toBe(error);
  });

  it.each<[string, unknown, ErrorCode]>([
    ['an empty body', withCode('FST_ERR_CTP_EMPTY_JSON_BODY'), 'invalid_json'],
    ['broken JSON', Object.assign(new SyntaxError('Unexpected token'), { statusCode: 400 }), 'invalid_json'],
    ['a body of another type', withCode('FST_ERR_CTP_INVALID_MEDIA_TYPE'), 'media_type_unsupported'],
    ['a body that is too large', withCode('FST_ERR_CTP_BODY_TOO_LARGE'), 'body_too_large'],
    ['an unknown route', new NotFoundException('Cannot GET /x'), 'route_not_found'],
    ['a refusal of Nest', new ForbiddenException(), 'forbidden'],
    [
      'an error of Fastify that Nest wrapped',
      new HttpException('wrapped', 500, { cause: withCode('FST_ERR_CTP_BODY_TOO_LARGE') }),
      'body_too_large',
    ],
    ['PostgreSQL away', withCode('ECONNREFUSED'), 'unavailable'],
    ['PostgreSQL shutting down', withCode('57P01'), 'unavailable'],
    ['a pool that has no connection left', withCode('P2024'), 'unavailable'],
    ['an outage behind another error', new Error('failed', { cause: withCode('08006') }), 'unavailable'],
    ['Redis away', new Error('Connection is closed.'), 'unavailable'],
    ['Redis silent', new Error('Command timed out'), 'unavailable'],
    [
      'Redis about to be reconnected',
      new Error("Stream isn't writeable and enableOfflineQueue options is false"),
      'unavailable',
    ],
    ['SQL that is wrong', withCode('42601'), 'internal'],
    ['a status that nobody planned', new HttpException('teapot', 418), 'internal'],
    ['a SyntaxError of our own', new SyntaxError('Unexpected end of JSON input'), 'internal'],
    ['a bug', new TypeError("Cannot read properties of undefined (reading 'x')"), 'internal'],
  ])('finds the place of %s', (_, thrown, code) => {
    expect(toAppError(thrown).code).toBe(code);
  });

  it('tells nobody what failed inside, and keeps it for the log', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.integer(), fc.constant(undefined), fc.constant(null)),
        (secret) => {
          const thrown = typeof secret === 'string' ? new Error(`secret ${secret}`) : secret;
          const error = toAppError(thrown);
          expect(error.cause).toBe(thrown);
          expect(JSON.stringify(problemOf(error, WHERE))).not.toContain('secret');
        },
      ),
    );
    expect(JSON.stringify(problemOf(toAppError(withCode('ECONNRESET')), WHERE))).not.toContain('secret');
  });

  it('says when to come again after an outage', () => {
    const problem = problemOf(toAppError(withCode('ECONNREFUSED')), WHERE);
    expect(problem).toMatchObject({
      status: 503,
      retryable: true,
      retryAfterMs: expect.any(Number) as number,
    });
  });
});

describe('problemOf', () => {
  it.each(Object.keys(ERROR_CATALOGUE) as ErrorCode[])(
    'gives %s every member, and the status of its kind',
    (code) => {
      const problem = problemOf(new AppError(code, 'It is so.'), WHERE);
      expect(ProblemSchema.strict().parse(problem)).toEqual({
        type: `urn:claude-runner:error:${code}`,
        ...ERROR_CATALOGUE[code],
        ...WHERE,
        code,
        detail: 'It is so.',
        retryAfterMs: null,
        errors: [],
      });
    },
  );
});
