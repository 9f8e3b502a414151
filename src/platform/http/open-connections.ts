import type { Server } from 'node:http';
import type { Socket } from 'node:net';

/**
 * The connections of a server. `closeAllConnections` of Node 20 leaves those on which no request has begun, and each of them
 * would hold up the end of the server until it times out.
 */
export class OpenConnections {
  private readonly sockets = new Set<Socket>();
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
  }

  /** Destroys them all, and those that still come. */
  close(): void {
    this.isClosed = true;
    for (const socket of this.sockets) socket.destroy();
  }
}
