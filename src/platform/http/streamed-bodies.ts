import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { RouteConfig } from '@nestjs/platform-fastify';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../errors/app-error.js';
import { answerClientError } from './client-errors.js';
import { LATE, orLate } from '../timing/or-late.js';

/** How long a streamed body may pause. */
const IDLE_MS = 60_000;
const BYTES = 'application/octet-stream';

/** The route takes its body as it comes, whatever its type says that it is; see `StreamedBody`. */
export const TakesStreamedBody = () => RouteConfig({ takesStreamedBody: true });

export interface Streamed {
  content: AsyncIterable<Buffer>;
  /** How many bytes are to come, where the client says so. */
  length: number | null;
}

/** What a route that `TakesStreamedBody` is sent. */
export const StreamedBody = createParamDecorator((_: unknown, context: ExecutionContext): Streamed => {
  const { body, headers } = context.switchToHttp().getRequest<FastifyRequest>();
  const length = Number(headers['content-length'] ?? NaN);
  return {
    content: body === undefined ? nothing() : chunksOf(body as Readable),
    length: Number.isNaN(length) ? null : length,
  };
});

/**
 * To be called after the parser of JSON was added. A streamed body may take long; that others do not is seen to here.
 * @param bodyMs how long all of a body may take that is not streamed
 */
export function readStreamedBodies(fastify: FastifyInstance, bodyMs: number): void {
  fastify.addHook('onRequest', (request, _reply, done) => {
    if (isStreamed(request)) request.raw.headers['content-type'] = BYTES;
    else endWhenLate(request.raw, bodyMs);
    done();
  });
  fastify.addContentTypeParser(BYTES, (request, payload, done) => {
    if (isStreamed(request)) done(null, payload);
    else done(new AppError('media_type_unsupported', 'Send the body as application/json.'));
  });
}

const isStreamed = ({ routeOptions }: FastifyRequest) =>
  (routeOptions.config as { takesStreamedBody?: boolean }).takesStreamedBody === true;

/** As Node itself says it of a whole request. */
class LateBody extends Error {
  readonly code = 'ERR_HTTP_REQUEST_TIMEOUT';
}

function endWhenLate(request: IncomingMessage, bodyMs: number): void {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = request.headers;
  if (length === '0' && encoding === undefined) return;
  const timer = setTimeout(() => {
    if (!request.complete) answerClientError(new LateBody(), request.socket);
  }, bodyMs);
  request.once('close', () => clearTimeout(timer));
}

// eslint-disable-next-line @typescript-eslint/no-empty-function -- there is nothing in it
async function* nothing(): AsyncGenerator<Buffer, void> {}

/** Whoever stops early leaves the connection whole, for the answer: what still comes is thrown away. */
async function* chunksOf(body: Readable): AsyncGenerator<Buffer, void> {
  const chunks = body.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Buffer>;
  try {
    for (;;) {
      const next = await orLate(chunks.next(), IDLE_MS);
      if (next === LATE) {
        body.destroy();
        throw new Error(`Nothing came for ${IDLE_MS} ms.`);
      }
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    await chunks.return?.();
    body.resume();
  }
}
