import type { Socket } from 'socket.io-client';
import type { ProcessEvent } from '../../src/processes/process-events.schemas.js';
import type { Process } from '../../src/processes/processes.schemas.js';
import type { ApiClient } from '../support/api-client.js';
import { ask, connectSocket } from './socket-call.js';

interface Following {
  processId: string;
  after: number;
  saw: (process: Process) => void;
}

/** The log after a seq, as a socket that follows it hears it. @throws Error when the connection breaks */
export async function* socketEvents(
  client: ApiClient,
  { processId, after, saw }: Following,
  signal: AbortSignal,
): AsyncGenerator<ProcessEvent, void> {
  const socket = await connectSocket(client, signal);
  const leave = () => socket.disconnect();
  signal.addEventListener('abort', leave, { once: true });
  try {
    const heard = new Heard(socket, processId);
    const answer = await ask(socket, 'claude:status', { processId, after });
    if (!answer.ok) throw new Error(`refused: ${answer.error.status} ${answer.error.code}`);
    saw(answer.process);
    for (;;) yield await heard.next();
  } finally {
    signal.removeEventListener('abort', leave);
    leave();
  }
}

/** What a socket hears of one process, in order, until the connection breaks. */
class Heard {
  private readonly events: ProcessEvent[] = [];
  private failure: Error | null = null;
  private wake: () => void = () => undefined;

  constructor(socket: Socket, processId: string) {
    socket.on('claude:progress', (event: ProcessEvent) => {
      if (event.processId !== processId) return;
      this.events.push(event);
      this.wake();
    });
    socket.on('disconnect', (reason) => {
      this.failure ??= new Error(`The socket was disconnected: ${reason}`);
      this.wake();
    });
  }

  async next(): Promise<ProcessEvent> {
    for (;;) {
      const event = this.events.shift();
      if (event) return event;
      if (this.failure) throw this.failure;
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
  }
}
