import { type CanActivate, type ExecutionContext, UseGuards } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { AppError } from '../platform/errors/app-error.js';

/** To take the key and run the request twice all the same would be worse than to refuse it. */
class IdempotencyKeyRefusal implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    if (context.switchToHttp().getRequest<FastifyRequest>().headers['idempotency-key'] === undefined)
      return true;
    throw new AppError('not_supported_yet', 'The header Idempotency-Key is not supported yet.');
  }
}

/** The route does not know `Idempotency-Key` yet, and says so. */
export const RefusesIdempotencyKey = () => UseGuards(new IdempotencyKeyRefusal());
