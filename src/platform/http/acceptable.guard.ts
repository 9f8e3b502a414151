import type { CanActivate, ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { AppError } from '../errors/app-error.js';
import { Accept } from './accept.js';

const PROBLEM = 'application/problem+json';

/** Refuses who accepts nothing that the route answers with. The refusal itself is a problem all the same. */
export class AcceptableGuard implements CanActivate {
  constructor(private readonly mediaTypes: string[]) {}

  canActivate(context: ExecutionContext): boolean {
    const accept = new Accept(context.switchToHttp().getRequest<FastifyRequest>().headers.accept);
    if (this.mediaTypes.some((type) => accept.qualityOf(type) > 0) || accept.names(PROBLEM)) return true;
    throw new AppError('not_acceptable', `The route answers with ${this.mediaTypes.join(' or ')}.`);
  }
}
