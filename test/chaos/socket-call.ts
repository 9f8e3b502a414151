import type { Socket } from 'socket.io-client';
import type { ApiClient } from '../support/api-client.js';
import type { SocketAnswer } from '../support/recorded-socket.js';

/** @throws Error when it cannot be, or the signal aborts */
export async function connectSocket(client: ApiClient, signal?: AbortSignal): Promise<Socket> {
  const socket = client.socket();
  socket.io.reconnection(false);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('connect_error', reject);
      // The connection stood, and broke before the server had said whether it lets us in.
      socket.io.once('close', (reason) => reject(new Error(`The connection broke: ${reason}`)));
      if (signal?.aborted) reject(signal.reason as Error);
      signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      socket.connect();
    });
    return socket;
  } catch (error) {
    socket.disconnect();
    throw error;
  }
}

/** Resolves with the ack. @throws Error when the connection breaks before */
export function ask(socket: Socket, event: string, message: unknown): Promise<SocketAnswer> {
  return new Promise((resolve, reject) => {
    const onGone = (reason: string) => reject(new Error(`The socket was disconnected: ${reason}`));
    socket.once('disconnect', onGone);
    socket.emit(event, message, (answer: SocketAnswer) => {
      socket.off('disconnect', onGone);
      resolve(answer);
    });
    if (!socket.connected) onGone('before it was asked');
  });
}

/** One message over a connection of its own. */
export async function askOnce(client: ApiClient, event: string, message: unknown): Promise<SocketAnswer> {
  const socket = await connectSocket(client);
  return ask(socket, event, message).finally(() => socket.disconnect());
}
