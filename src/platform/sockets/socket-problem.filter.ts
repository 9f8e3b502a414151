import { type ArgumentsHost, Catch, Logger } from '@nestjs/common';
import { BaseWsExceptionFilter } from '@nestjs/websockets';
import type { Socket } from 'socket.io';
import { problemOf } from '../errors/app-error.js';
import type { Problem } from '../errors/errors.schemas.js';
import { logProblem } from '../errors/log-problem.js';
import { toAppError } from '../errors/to-app-error.js';
import { charactersIn, noteSent } from './socket-outbox.js';

/** Answers every error of a socket message: to its ack, or as `claude:error` where it carried none. */
@Catch()
export class SocketProblemFilter extends BaseWsExceptionFilter {
  private readonly log = new Logger(SocketProblemFilter.name);

  override catch(thrown: unknown, host: ArgumentsHost): void {
    const client = host.switchToWs().getClient<Socket>();
    const error = toAppError(thrown);
    const problem = problemOf(error, { instance: host.switchToWs().getPattern(), requestId: client.id });
    logProblem(this.log, error, client.id);
    const ack = host.getArgs<unknown[]>().find((argument) => typeof argument === 'function') as
      Ack | undefined;
    answerProblem(client, problem, ack);
  }
}

export type Ack = (answer: unknown) => void;

export function answerProblem(socket: Socket, problem: Problem, ack: Ack | undefined): void {
  if (ack) {
    ack({ ok: false, error: problem });
    return;
  }
  noteSent(socket, charactersIn(problem));
  socket.emit('claude:error', { error: problem });
}
