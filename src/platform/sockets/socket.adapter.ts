import type { IncomingMessage, Server as HttpServer } from 'node:http';
import type { Duplex } from 'node:stream';
import { type INestApplicationContext, Logger } from '@nestjs/common';
import { IoAdapter } from '@nestjs/platform-socket.io';
import type { MessageMappingProperties } from '@nestjs/websockets';
import type { Server, ServerOptions, Socket } from 'socket.io';
import type { WithCaller } from '../access/access.decorators.js';
import type { Caller } from '../access/caller.js';
import { AppError, problemOf } from '../errors/app-error.js';
import type { Problem } from '../errors/errors.schemas.js';
import { logProblem } from '../errors/log-problem.js';
import { toAppError } from '../errors/to-app-error.js';
import { declineUpgrade } from '../http/declined-upgrade.js';
import { MAX_BODY_BYTES } from '../http/limits.js';
import { MessageIntake } from './message-intake.js';
import { type Ack, answerProblem } from './socket-problem.filter.js';
import { charactersIn, noteSent } from './socket-outbox.js';

/** How long a connection may take to say which namespace it wants. */
const CONNECT_TIMEOUT_MS = 10_000;
/** How much of the name of an unknown event is sent back. */
const MAX_EVENT_NAME = 100;

export interface SocketAccess {
  /** Finds the caller behind the token of a handshake. @throws AppError */
  authenticate: (token: string) => Promise<Caller>;
  /** Calls `end` once the credentials of the caller have ended. @returns how to let go */
  hold: (caller: Caller, end: () => void) => () => void;
}

/** Socket.IO on the HTTP server. Nobody connects without valid credentials; the connection ends with them. */
export class SocketAdapter extends IoAdapter {
  private readonly log = new Logger(SocketAdapter.name);
  private server: Server | null = null;
  private isClosing = false;

  constructor(
    app: INestApplicationContext,
    private readonly access: SocketAccess,
  ) {
    super(app);
  }

  override createIOServer(port: number, options?: ServerOptions): Server {
    const server = super.createIOServer(port, {
      ...options,
      maxHttpBufferSize: MAX_BODY_BYTES,
      serveClient: false,
      connectTimeout: CONNECT_TIMEOUT_MS,
      // A connection that is refused later, by its token, stays open for a while: it would hold up the end of the server.
      allowRequest: (_request: unknown, decide: Decide) => decide(null, !this.isClosing),
    } as ServerOptions);
    this.server = server;
    declineOtherUpgrades(this.httpServer as HttpServer, `${server.path()}/`);
    server.use((socket, next) => {
      this.admit(socket).then(
        () => next(),
        (thrown: unknown) => next(this.refusal(socket, thrown)),
      );
    });
    return server;
  }

  override bindMessageHandlers(
    socket: Socket,
    handlers: MessageMappingProperties[],
    transform: Transform,
  ): void {
    const intake = new MessageIntake(socket, () => {
      this.log.warn({ requestId: socket.id }, 'A socket asks more than it listens; it is disconnected.');
      socket.disconnect(true);
    });
    const paced = handlers.map((handler) => ({
      ...handler,
      callback: async (data: unknown, ack?: Ack): Promise<unknown> =>
        intake.take<unknown>(data, () => handler.callback(data, ack && noted(socket, ack))),
    }));
    super.bindMessageHandlers(socket, paced, transform);
    const known = new Set<unknown>(handlers.map(({ message }) => message as unknown));
    socket.onAny((event: unknown, ...args: unknown[]) => {
      if (known.has(event)) return;
      void intake.take(args, () => {
        const ack = args.findLast((argument) => typeof argument === 'function') as Ack | undefined;
        answerProblem(socket, unknownEvent(socket, String(event)), ack && noted(socket, ack));
      });
    });
  }

  /** Ends every connection and lets none in. Clients come again elsewhere, and resume with the seq that they have. */
  disconnectAll(): void {
    this.isClosing = true;
    this.server?.engine.close();
  }

  private async admit(socket: Socket): Promise<void> {
    const token: unknown = socket.handshake.auth.token;
    if (typeof token !== 'string' || token === '')
      throw new AppError('unauthenticated', 'Connect with auth: { token }, an access token or an API key.');
    const caller = await this.access.authenticate(token);
    (socket.data as WithCaller).caller = caller;
    this.closeWithCredentials(socket, caller);
  }

  /** The client comes again, is told why it may not, or has fresh credentials by then. */
  private closeWithCredentials({ conn }: Socket, caller: Caller): void {
    const release = this.access.hold(caller, () => conn.close(true));
    if (conn.readyState === 'closed') release();
    else conn.once('close', release);
  }

  /** Socket.IO hands its `data` to the client's `connect_error`. */
  private refusal(socket: Socket, thrown: unknown): Error {
    const error = toAppError(thrown);
    const problem = problemOf(error, { instance: 'connect', requestId: socket.id });
    logProblem(this.log, error, socket.id);
    return Object.assign(new Error(problem.code), { data: problem });
  }
}

/** An ack that counts as something that the socket is sent. */
const noted =
  (socket: Socket, ack: Ack): Ack =>
  (answer) => {
    noteSent(socket, charactersIn(answer));
    ack(answer);
  };

function unknownEvent(socket: Socket, event: string): Problem {
  const name = event.slice(0, MAX_EVENT_NAME).toWellFormed();
  const error = new AppError('event_not_found', `There is no event ${JSON.stringify(name)} to send.`);
  return problemOf(error, { instance: name, requestId: socket.id });
}

type Transform = Parameters<IoAdapter['bindMessageHandlers']>[2];

/** Engine.IO would close the connection of whoever wants another protocol (`curl --http2` does) without an answer. */
function declineOtherUpgrades(http: HttpServer, path: string): void {
  const listeners = http.listeners('upgrade');
  http.removeAllListeners('upgrade');
  http.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const isOurs =
      request.headers.upgrade?.toLowerCase() === 'websocket' && request.url?.startsWith(path) === true;
    if (isOurs) for (const listen of listeners) listen.call(http, request, socket, head);
    else declineUpgrade(http, { request, socket, head });
  });
}

type Decide = (error: string | null, isAllowed: boolean) => void;
