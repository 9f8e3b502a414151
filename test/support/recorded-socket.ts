import type { Socket } from 'socket.io-client';
import type { Problem } from '../../src/platform/errors/errors.schemas.js';
import type { ProcessEvent } from '../../src/processes/process-events.schemas.js';
import type { Process, ProcessError } from '../../src/processes/processes.schemas.js';
import type { ApiClient } from './api-client.js';

const PATIENCE_MS = 60_000;

export type SocketAnswer = { ok: true; process: Process } | { ok: false; error: Problem };

interface Ended {
  processId: string;
  seq: number;
  process: Process;
}

interface Told {
  'claude:queued': { processId: string; position: number; estimatedStartAt: string | null };
  'claude:progress': ProcessEvent;
  'claude:permission': ProcessEvent;
  'claude:complete': Ended;
  'claude:error': (Ended & { error: ProcessError }) | { error: Problem };
}

/** What a socket has been told, acks included. */
export type Heard =
  | { [Name in keyof Told]: { name: Name; told: Told[Name] } }[keyof Told]
  | { name: 'ack'; told: SocketAnswer }
  | { name: 'disconnect'; told: string };

/** A socket that keeps, in order, everything that it is told. */
export class RecordedSocket {
  readonly heard: Heard[] = [];
  private readonly listeners = new Set<() => void>();

  private constructor(readonly socket: Socket) {
    socket.onAny((name: string, told: unknown) => this.hear({ name, told } as Heard));
    socket.on('disconnect', (reason) => this.hear({ name: 'disconnect', told: reason }));
  }

  static async connect(client: ApiClient): Promise<RecordedSocket> {
    const recorded = new RecordedSocket(client.socket());
    await new Promise<void>((resolve, reject) => {
      recorded.socket.once('connect', resolve);
      recorded.socket.once('connect_error', reject);
      recorded.socket.connect();
    });
    return recorded;
  }

  /** Sends a message, and waits for its ack. */
  async ask(event: string, message: unknown): Promise<SocketAnswer> {
    return new Promise((resolve, reject) => {
      this.socket
        .timeout(PATIENCE_MS)
        .emit(event, message, (error: Error | null, answer: SocketAnswer): void => {
          if (error) {
            reject(error);
            return;
          }
          this.hear({ name: 'ack', told: answer });
          resolve(answer);
        });
    });
  }

  /** As `ask`, for what must succeed. */
  async askFor(event: string, message: unknown): Promise<Process> {
    const answer = await this.ask(event, message);
    if (!answer.ok) throw new Error(`${event} was refused: ${answer.error.detail}`);
    return answer.process;
  }

  /** Everything of one name that has been heard of a process. */
  all<Name extends keyof Told>(name: Name, processId: string): Told[Name][] {
    return this.heard
      .filter((heard) => heard.name === name && isOf(heard, processId))
      .map(({ told }) => told as Told[Name]);
  }

  /** The log of a process, as far as it has been heard. */
  log(processId: string): ProcessEvent[] {
    return this.all('claude:progress', processId);
  }

  /** Resolves as soon as what has been heard satisfies it. */
  async until(isEnough: (heard: Heard[]) => boolean): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const look = () => {
        if (!isEnough(this.heard)) return;
        clearTimeout(timer);
        this.listeners.delete(look);
        resolve();
      };
      const timer = setTimeout(() => {
        this.listeners.delete(look);
        const last = JSON.stringify(this.heard.at(-1) ?? null).slice(0, 500);
        reject(new Error(`Not heard: ${isEnough.toString()}; last: ${last}`));
      }, PATIENCE_MS);
      this.listeners.add(look);
      look();
    });
  }

  /** Resolves when the socket has been told of the end of a process. */
  untilEnd(processId: string): Promise<void> {
    const isEnd = (heard: Heard) =>
      (heard.name === 'claude:complete' || heard.name === 'claude:error') && isOf(heard, processId);
    return this.until((heard) => heard.some(isEnd));
  }

  close(): void {
    this.socket.disconnect();
  }

  private hear(heard: Heard): void {
    this.heard.push(heard);
    for (const look of [...this.listeners]) look();
  }
}

const isOf = ({ told }: Heard, processId: string) =>
  typeof told === 'object' && 'processId' in told && told.processId === processId;
