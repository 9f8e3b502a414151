import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { AppError } from '../platform/errors/app-error.js';
import { SeqTextSchema } from './process-queries.schemas.js';

/** The seq that a reconnecting EventSource has seen, by its header; undefined where it sends none. */
export const LastEventId = createParamDecorator(
  (_: unknown, context: ExecutionContext): number | undefined => {
    const header = context.switchToHttp().getRequest<FastifyRequest>().headers['last-event-id'];
    if (header === undefined || header === '') return undefined;
    const seq = SeqTextSchema.safeParse(header);
    if (seq.success) return seq.data;
    throw new AppError('cursor_invalid', 'The header Last-Event-ID must be a seq of the log.');
  },
);
