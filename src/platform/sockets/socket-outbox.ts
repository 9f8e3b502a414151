import { type EventEmitter, once } from 'node:events';
import type { Socket } from 'socket.io';

/** What a socket has not taken yet, in characters; past this, whoever has more for it waits until it has. */
const HIGH_WATER_CHARACTERS = 256 * 1024;

/** What has been sent since the socket had last taken everything. */
const sent = new WeakMap<Socket, number>();

/** Everything that a socket is sent, and can be large or asked for at will, is to be noted. */
export function noteSent(socket: Socket, characters: number): void {
  sent.set(socket, (sent.get(socket) ?? 0) + characters);
}

/** Whether the socket may be sent more. */
export function hasRoom(socket: Socket): boolean {
  if ((sent.get(socket) ?? 0) <= HIGH_WATER_CHARACTERS) return true;
  if (!hasTakenAll(socket)) return false;
  sent.set(socket, 0);
  return true;
}

/** Resolves when the socket may be sent more, or the signal aborts. */
export async function untilRoom(socket: Socket, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && !hasRoom(socket)) await movement(socket, signal);
}

/** Engine.IO documents `drain`, not what waits for it: https://socket.io/docs/v4/server-socket-instance/#socketconn */
export function hasTakenAll({ conn }: Socket): boolean {
  const { writeBuffer } = conn as unknown as { writeBuffer: unknown[] };
  return writeBuffer.length === 0 && transportOf(conn).writable;
}

/** About how long a value is as JSON. However deep it is: a message has not been checked yet. */
export function charactersIn(value: unknown): number {
  const left = [value];
  let characters = 0;
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next === 'string') characters += next.length;
    else if (ArrayBuffer.isView(next)) characters += next.byteLength;
    else if (typeof next === 'object' && next !== null)
      for (const [key, inner] of Object.entries(next)) {
        characters += key.length;
        left.push(inner);
      }
    characters += 4;
  }
  return characters;
}

/**
 * Resolves when the socket may have taken something. Engine.IO says `drain` when it has handed over to its transport; that the
 * transport is done, only the transport says (`ready`), and nothing more comes if nothing else is sent meanwhile:
 * `flush()` and `onReady` in https://github.com/socketio/socket.io/blob/main/packages/engine.io/lib/socket.ts
 */
async function movement({ conn }: Socket, signal: AbortSignal): Promise<void> {
  const moved = new AbortController();
  const stop = () => moved.abort();
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  const heard = [
    once(conn, 'drain', moved),
    once(conn, 'upgrade', moved),
    once(transportOf(conn), 'ready', moved),
  ];
  await Promise.race(heard).catch(() => undefined);
  signal.removeEventListener('abort', stop);
  stop();
  await Promise.allSettled(heard);
}

function transportOf(conn: Socket['conn']): EventEmitter & { writable: boolean } {
  return (conn as unknown as { transport: EventEmitter & { writable: boolean } }).transport;
}
