import { Readable } from 'node:stream';
import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { type Observable, tap } from 'rxjs';
import { callerOf } from '../platform/access/access.decorators.js';
import { OpenCredentials } from './open-credentials.js';

/** An answer that is streamed ends with the credentials of who asked for it; any other may still come. */
@Injectable()
export class StreamedAnswersInterceptor implements NestInterceptor {
  constructor(private readonly openCredentials: OpenCredentials) {}

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    if (context.getType() !== 'http') return next.handle();
    const caller = callerOf(context);
    const { raw } = context.switchToHttp().getResponse<FastifyReply>();
    return next.handle().pipe(
      tap((answer: unknown) => {
        if (!caller || !(answer instanceof Readable) || answer.destroyed) return;
        // The connection is reset: an end would look like the end of what is streamed.
        answer.once(
          'close',
          this.openCredentials.hold(caller, () => raw.destroy()),
        );
      }),
    );
  }
}
