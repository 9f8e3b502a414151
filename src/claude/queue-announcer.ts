import { Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { ProcessesService } from '../processes/processes.service.js';

const INTERVAL_MS = 1_000;

interface Watch {
  processId: string;
  /** The position that was announced last. */
  position: number | null;
  announce: (position: number) => void;
}

/** Tells followers of waiting processes when their place in the queue changes: one look a second for all of them. */
@Injectable()
export class QueueAnnouncer implements OnApplicationShutdown {
  private readonly logger = new Logger(QueueAnnouncer.name);
  private readonly watches = new Map<AbortSignal, Watch>();
  private timer: NodeJS.Timeout | null = null;

  constructor(private readonly processes: ProcessesService) {}

  /** Until the signal, which is also the watch's name, aborts. */
  start(watch: Watch, signal: AbortSignal): void {
    this.watches.set(signal, watch);
    signal.addEventListener('abort', () => this.stop(signal), { once: true });
    this.timer ??= setInterval(() => void this.look(), INTERVAL_MS);
  }

  stop(signal: AbortSignal): void {
    this.watches.delete(signal);
    if (this.watches.size === 0) this.onApplicationShutdown();
  }

  onApplicationShutdown(): void {
    if (this.timer) clearInterval(this.timer);
    this.timer = null;
  }

  private async look(): Promise<void> {
    try {
      const positions = await this.processes.queuePositions(
        [...this.watches.values()].map(({ processId }) => processId),
      );
      for (const watch of this.watches.values()) {
        const position = positions.get(watch.processId);
        if (position === undefined || position === watch.position) continue;
        watch.position = position;
        watch.announce(position);
      }
    } catch (err) {
      this.logger.debug({ err });
    }
  }
}
