import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Accept } from './accept.js';

const MS_PER_S = 1000;
const WAIT = /(?:^|[,;\s])wait=(\d{1,6})(?=$|[,;\s])/i;

/** How long `Prefer: wait=N` (RFC 7240, seconds) asks to wait, in milliseconds; null where it does not. */
export const PreferredWaitMs = createParamDecorator(
  (_: unknown, context: ExecutionContext): number | null => {
    const { prefer } = context.switchToHttp().getRequest<FastifyRequest>().headers;
    const seconds = WAIT.exec([prefer ?? ''].flat().join(','))?.[1];
    return seconds === undefined ? null : Number(seconds) * MS_PER_S;
  },
);

/** An `AbortSignal` that aborts when the client goes away before it has its answer. */
export const ClientGone = createParamDecorator((_: unknown, context: ExecutionContext): AbortSignal => {
  const { raw } = context.switchToHttp().getResponse<FastifyReply>();
  const controller = new AbortController();
  const onClose = () => {
    if (!raw.writableFinished) controller.abort();
  };
  if (raw.destroyed) controller.abort();
  else raw.once('close', onClose);
  return controller.signal;
});

/** Whether the client would rather have server-sent events than JSON: it names them, or JSON is worse. */
export const WantsEventStream = createParamDecorator((_: unknown, context: ExecutionContext): boolean => {
  const accept = new Accept(context.switchToHttp().getRequest<FastifyRequest>().headers.accept);
  const [events, json] = [accept.qualityOf('text/event-stream'), accept.qualityOf('application/json')];
  return events > json || (events === json && accept.names('text/event-stream'));
});
