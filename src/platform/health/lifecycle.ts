import { setMaxListeners } from 'node:events';
import { Injectable } from '@nestjs/common';
import { AppError } from '../errors/app-error.js';

/** Whether this server still takes work. It drains once, and ends after that. */
@Injectable()
export class Lifecycle {
  private readonly draining = new AbortController();
  private readonly hurrying = new AbortController();

  constructor() {
    setMaxListeners(0, this.drainSignal); // every stream and every wait listens
  }

  /** Aborted when the server begins to shut down: streams and waits end, and callers come again elsewhere. */
  get drainSignal(): AbortSignal {
    return this.draining.signal;
  }

  /** Aborted when running processes are not waited for any longer. */
  get hurrySignal(): AbortSignal {
    return this.hurrying.signal;
  }

  get isDraining(): boolean {
    return this.draining.signal.aborted;
  }

  /** @throws AppError `draining` */
  requireOpen(): void {
    if (this.isDraining) throw new AppError('draining', 'The server is shutting down. Come again.');
  }

  drain(): void {
    this.draining.abort();
  }

  hurry(): void {
    this.drain();
    this.hurrying.abort();
  }
}
