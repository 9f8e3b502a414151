import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { FastifyRequest } from 'fastify';
import type { Socket } from 'socket.io';
import { callerOf, PUBLIC, REQUIRED_SCOPE, type WithCaller } from '../platform/access/access.decorators.js';
import type { Scope } from '../platform/access/access.schemas.js';
import type { Caller } from '../platform/access/caller.js';
import { AppError } from '../platform/errors/app-error.js';
import { Authenticator, type Credentials } from './authenticator.js';

/** Stands before every route and every socket event. A handler that is not public and names no scope is refused. */
@Injectable()
export class AccessGuard implements CanActivate {
  constructor(
    private readonly authenticator: Authenticator,
    private readonly reflector: Reflector,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const handler = [context.getHandler(), context.getClass()];
    const isPublic = this.reflector.getAllAndOverride<boolean | undefined>(PUBLIC, handler) ?? false;
    const headers = credentialsOf(context);
    if (isPublic && headers.authorization === undefined && headers['x-api-key'] === undefined) return true;

    const caller = await this.authenticator.authenticate(headers);
    holderOf(context).caller = caller;
    const scope = this.reflector.getAllAndOverride<Scope | undefined>(REQUIRED_SCOPE, handler);
    if (!isPublic && !allows(caller, scope))
      throw new AppError('forbidden', `The credentials need the scope ${scope ?? 'that no one has'}.`);
    return callerOf(context) !== null;
  }
}

const allows = (caller: Caller, scope: Scope | undefined) => scope !== undefined && caller.scopes.has(scope);

// A socket proves itself anew with each message, so that a revoked key ends at once there too.
function credentialsOf(context: ExecutionContext): Credentials {
  if (context.getType() !== 'ws') return context.switchToHttp().getRequest<FastifyRequest>().headers;
  const token: unknown = context.switchToWs().getClient<Socket>().handshake.auth.token;
  return { authorization: `Bearer ${String(token)}` };
}

const holderOf = (context: ExecutionContext): WithCaller =>
  context.getType() === 'ws'
    ? (context.switchToWs().getClient<Socket>().data as WithCaller)
    : context.switchToHttp().getRequest<WithCaller>();
