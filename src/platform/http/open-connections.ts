import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * The connections of a server. `closeAllConnections` of Node 20 leaves those on which no request has begun, and each of them
 * would hold up the end of the server until it times out.
 */
export class OpenConnections {
  private readonly sockets = new Set<Socket>();
  private readonly answering = new Map<ServerResponse, IncomingMessage>();
  private isClosed = false;

  constructor(server: Server) {
    server.on('connection', (socket: Socket) => {
      if (this.isClosed) {
        socket.destroy();
        return;
      }
      this.sockets.add(socket);
      socket.once('close', () => this.sockets.delete(socket));
    });
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.answering.set(response, request);
      response.once('close', () => this.answering.delete(response));
    });
  }

  /** Resolves when every request that has arrived has its answer, or the time is over. */
  async answered(timeoutMs: number): Promise<void> {
    const signal = AbortSignal.timeout(timeoutMs);
    const arrived = () => [...this.answering].filter(([, request]) => request.complete);
    for (let waiting = arrived(); waiting.length > 0 && !signal.aborted; waiting = arrived())
      await Promise.allSettled(waiting.map(([response]) => once(response, 'close', { signal })));
  }

  /** Destroys them all, and those that still come. */
  close(): void {
    this.isClosed = true;
    for (const socket of this.sockets) socket.destroy();
  }
}
