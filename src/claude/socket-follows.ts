import { Injectable, Logger } from '@nestjs/common';
import type { Socket } from 'socket.io';
import type { Caller } from '../platform/access/caller.js';
import { hasTakenAll, noteSent, untilRoom } from '../platform/sockets/socket-outbox.js';
import { isTerminal, sizeOf, type TerminalEvent } from '../processes/process-events.schemas.js';
import type { Process } from '../processes/processes.schemas.js';
import { ProcessesService } from '../processes/processes.service.js';
import { type Forecast, QueueForecastService } from '../processes/queue-forecast.service.js';
import { QueueAnnouncer } from './queue-announcer.js';

interface Follow {
  after: number;
  include?: 'raw' | undefined;
}

interface SocketState {
  disconnected: AbortController;
  follows: Map<string, AbortController>;
}

/** Sends the logs that sockets follow, each at the pace of its socket. */
@Injectable()
export class SocketFollows {
  private readonly logger = new Logger(SocketFollows.name);
  private readonly sockets = new WeakMap<Socket, SocketState>();

  constructor(
    private readonly processes: ProcessesService,
    private readonly forecast: QueueForecastService,
    private readonly announcer: QueueAnnouncer,
  ) {}

  /** Aborts when the socket goes away. */
  disconnectSignal(socket: Socket): AbortSignal {
    return this.stateOf(socket).disconnected.signal;
  }

  /** Follows a process from a seq on, in place of an earlier follow of the same process. */
  start(socket: Socket, caller: Caller, process: Process, follow: Follow): void {
    this.stop(socket, process.id);
    const { disconnected, follows } = this.stateOf(socket);
    if (disconnected.signal.aborted) return;
    const controller = new AbortController();
    follows.set(process.id, controller);
    this.send(socket, caller, process, follow, controller)
      .catch((err: unknown) => {
        // The client comes again with the seq that it has: a follow that just stopped would look like a slow process.
        this.logger.warn({ err, processId: process.id }, 'A follow failed; its socket is disconnected.');
        socket.disconnect(true);
      })
      .finally(() => {
        controller.abort();
        if (follows.get(process.id) === controller) follows.delete(process.id);
      });
  }

  stop(socket: Socket, processId: string): void {
    this.stateOf(socket).follows.get(processId)?.abort();
  }

  private async send(
    socket: Socket,
    caller: Caller,
    process: Process,
    follow: Follow,
    { signal }: AbortController,
  ): Promise<void> {
    await this.announceQueue(socket, process, signal);
    for await (const event of await this.processes.follow(caller, process.id, follow, signal)) {
      if (event.type !== 'created' && event.type !== 'queued') this.announcer.stop(signal);
      socket.emit('claude:progress', event);
      if (event.type === 'permission_requested') socket.emit('claude:permission', event);
      if (event.type === 'retrying') this.watchQueue(socket, process.id, null, signal);
      if (isTerminal(event)) emitEnding(socket, event);
      noteSent(socket, sizeOf(event));
      await untilRoom(socket, signal);
    }
  }

  /** The place that the process was found at is announced in any case, before its events: it may be claimed by now. */
  private async announceQueue(
    socket: Socket,
    { id, queuePosition, retryAt }: Process,
    signal: AbortSignal,
  ): Promise<void> {
    if (queuePosition === null) return;
    const place = { position: queuePosition, retryAt: retryAt === null ? null : new Date(retryAt) };
    const forecast = await this.forecast.of(place);
    if (signal.aborted) return;
    emitQueued(socket, id, forecast);
    this.watchQueue(socket, id, forecast, signal);
  }

  private watchQueue(socket: Socket, processId: string, last: Forecast | null, signal: AbortSignal): void {
    const announce = (forecast: Forecast) => {
      if (!hasTakenAll(socket)) return false;
      emitQueued(socket, processId, forecast);
      return true;
    };
    this.announcer.start({ processId, last, announce }, signal);
  }

  private stateOf(socket: Socket): SocketState {
    const known = this.sockets.get(socket);
    if (known) return known;
    const state: SocketState = {
      disconnected: new AbortController(),
      follows: new Map(),
    };
    this.sockets.set(socket, state);
    const onDisconnect = () => {
      state.disconnected.abort();
      for (const controller of state.follows.values()) controller.abort();
    };
    if (socket.disconnected) onDisconnect();
    else socket.once('disconnect', onDisconnect);
    return state;
  }
}

function emitEnding(socket: Socket, { processId, seq, type, process }: TerminalEvent): void {
  if (type === 'failed') socket.emit('claude:error', { processId, seq, process, error: process.error });
  else socket.emit('claude:complete', { processId, seq, process });
}

function emitQueued(socket: Socket, processId: string, { position, estimatedStartAt }: Forecast): void {
  socket.emit('claude:queued', {
    processId,
    position,
    estimatedStartAt: estimatedStartAt?.toISOString() ?? null,
  });
}
