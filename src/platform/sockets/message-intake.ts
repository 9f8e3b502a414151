import type { Socket } from 'socket.io';
import { charactersIn, hasRoom, untilRoom } from './socket-outbox.js';

/** How many messages of a socket are seen to at a time; their answers may all be there at once. */
const MAX_AT_WORK = 8;
const MAX_UNANSWERED = 256;
const MAX_UNANSWERED_CHARACTERS = 16 * 1024 * 1024;

/**
 * Lets the messages of a socket be seen to in their order, and as fast as the socket takes what it is sent: whoever asks and
 * does not listen would fill the memory with answers. Whoever asks on and on all the same is disconnected.
 */
export class MessageIntake {
  private readonly gone = new AbortController();
  private readonly waiting: (() => void)[] = [];
  private atWork = 0;
  private unanswered = 0;
  private unansweredCharacters = 0;
  private isAdmitting = false;

  /** @param onFlood what to do when there are too many */
  constructor(
    private readonly socket: Socket,
    private readonly onFlood: () => void,
  ) {
    socket.once('disconnect', () => this.gone.abort());
  }

  /** Does nothing where the socket is gone before the turn of the message has come. */
  async take<Result>(message: unknown, act: () => Result): Promise<Awaited<Result> | undefined> {
    const characters = charactersIn(message);
    this.unanswered += 1;
    this.unansweredCharacters += characters;
    if (this.unanswered > MAX_UNANSWERED || this.unansweredCharacters > MAX_UNANSWERED_CHARACTERS)
      this.onFlood();
    try {
      if (this.waiting.length === 0 && this.hasRoom()) this.atWork += 1;
      else await this.turn();
      return this.gone.signal.aborted ? undefined : await act();
    } finally {
      this.atWork -= 1;
      this.unanswered -= 1;
      this.unansweredCharacters -= characters;
      void this.admit();
    }
  }

  private hasRoom(): boolean {
    return !this.gone.signal.aborted && this.atWork < MAX_AT_WORK && hasRoom(this.socket);
  }

  private turn(): Promise<void> {
    const turn = new Promise<void>((resolve) => this.waiting.push(resolve));
    void this.admit();
    return turn;
  }

  /** Lets those in that wait, one after the other. */
  private async admit(): Promise<void> {
    if (this.isAdmitting) return;
    this.isAdmitting = true;
    while (this.waiting.length > 0 && this.atWork < MAX_AT_WORK) {
      await untilRoom(this.socket, this.gone.signal);
      this.atWork += 1;
      this.waiting.shift()?.();
    }
    this.isAdmitting = false;
  }
}
