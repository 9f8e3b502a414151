import { createParamDecorator, type ExecutionContext, SetMetadata } from '@nestjs/common';
import type { Socket } from 'socket.io';
import type { Scope } from './access.schemas.js';
import type { Caller } from './caller.js';

export const PUBLIC = 'access:public';
export const REQUIRED_SCOPE = 'access:scope';

/** Anyone may call it. A caller who brings credentials is known all the same. */
export const Public = () => SetMetadata(PUBLIC, true);

/** The credentials must have this scope. Every route and event that is not public names one. */
export const Requires = (scope: Scope) => SetMetadata(REQUIRED_SCOPE, scope);

/** The caller, or null on a public route without credentials. */
export const CurrentCaller = createParamDecorator((_: unknown, context: ExecutionContext): Caller | null =>
  callerOf(context),
);

/** A request and a socket keep their caller in the same place, so that one decorator and one guard serve both. */
export function callerOf(context: ExecutionContext): Caller | null {
  if (context.getType() === 'ws')
    return (context.switchToWs().getClient<Socket>().data as WithCaller).caller ?? null;
  return context.switchToHttp().getRequest<WithCaller>().caller ?? null;
}

export interface WithCaller {
  caller?: Caller | null;
}
