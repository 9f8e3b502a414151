import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { AppError } from '../platform/errors/app-error.js';
import { IdempotencyKeySchema } from '../processes/idempotency.schemas.js';

const HEADER = 'Idempotency-Key';

/** What names a request that may be sent again, and where its answer says that it was. */
export interface Idempotency {
  key: string;
  onReplayed: () => void;
}

/** The request's `Idempotency-Key`; null where it has none. */
export const IdempotencyOfRequest = createParamDecorator(
  (_: unknown, context: ExecutionContext): Idempotency | null => {
    const http = context.switchToHttp();
    // Node joins headers of one name; here two are none.
    const sent = http.getRequest<FastifyRequest>().raw.headersDistinct[HEADER.toLowerCase()];
    if (!sent) return null;
    if (sent.length > 1) throw malformed('must be sent once');
    const parsed = IdempotencyKeySchema.safeParse(sent[0]);
    if (!parsed.success) throw malformed(parsed.error.issues[0]?.message ?? '');
    const reply = http.getResponse<FastifyReply>();
    return { key: parsed.data, onReplayed: () => void reply.header('Idempotent-Replayed', 'true') };
  },
);

const malformed = (detail: string) =>
  new AppError('validation_failed', `The header ${HEADER} ${detail}.`, {
    errors: [{ pointer: `/${HEADER}`, code: 'invalid_format', detail }],
  });
