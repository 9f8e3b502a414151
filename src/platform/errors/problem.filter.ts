import { type ArgumentsHost, Catch, type ExceptionFilter, Logger } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { problemOf } from './app-error.js';
import { logProblem } from './log-problem.js';
import { toAppError } from './to-app-error.js';

const MS_PER_S = 1000;
const logger = new Logger('ProblemFilter');

/** Answers every error of an HTTP request as problem+json. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  catch(thrown: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    sendProblem(thrown, http.getRequest<FastifyRequest>(), http.getResponse<FastifyReply>());
  }
}

export function sendProblem(thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const error = toAppError(thrown);
  const problem = problemOf(error, { instance: pathOf(request), requestId: request.id });
  logProblem(logger, error, request.id);
  if (reply.sent || reply.raw.headersSent) {
    reply.raw.destroy();
    return;
  }
  if (problem.retryAfterMs !== null)
    void reply.header('Retry-After', Math.ceil(problem.retryAfterMs / MS_PER_S));
  if (problem.status === 401) void reply.header('WWW-Authenticate', 'Bearer');
  void reply.status(problem.status).type('application/problem+json').send(problem);
}

// Without its query: that may hold what does not belong in an answer.
const pathOf = (request: FastifyRequest) => request.url.split('?', 1)[0] ?? null;
