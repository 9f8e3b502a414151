import {
  type CallHandler,
  type ExecutionContext,
  mixin,
  type NestInterceptor,
  UseInterceptors,
} from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { map, type Observable } from 'rxjs';
import { isEnded, type Process, ProcessSchema } from './processes.schemas.js';

const RETRY_AFTER_S = 1;

/**
 * The route answers with a process: its status also goes into `Process-Status`. Where the end was waited for and has not
 * come, the answer is 202 and says where to ask for it.
 */
export function AnswersProcess({ waits }: { waits: boolean }) {
  class ProcessAnswerInterceptor implements NestInterceptor {
    intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
      const reply = context.switchToHttp().getResponse<FastifyReply>();
      return next.handle().pipe(
        map((answered: unknown) => {
          if (isProcess(answered)) describe(reply, answered, waits);
          return answered;
        }),
      );
    }
  }
  return UseInterceptors(mixin(ProcessAnswerInterceptor));
}

function describe(reply: FastifyReply, process: Process, waits: boolean): void {
  void reply.header('Process-Status', process.status);
  if (!waits || isEnded(process)) return;
  void reply.status(202).header('Location', process.links.self).header('Retry-After', RETRY_AFTER_S);
}

// A route may also answer with a stream.
const isProcess = (answered: unknown): answered is Process =>
  typeof answered === 'object' && answered !== null && 'links' in answered && 'status' in answered;

/** The answers of a route that waits, for the OpenAPI document. */
export const WAITED_ANSWERS = {
  200: { description: 'The process, which has ended', schema: ProcessSchema, headers: ['Process-Status'] },
  202: {
    description: 'The process, which has not ended yet; ask again at Location',
    schema: ProcessSchema,
    headers: ['Process-Status', 'Location', 'Retry-After'],
  },
};
