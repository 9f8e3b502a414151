import { Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { every } from '../platform/timing/every.js';
import { type Forecast, QueueForecastService } from '../processes/queue-forecast.service.js';

const INTERVAL_MS = 1_000;
/** An estimate that moves by less has not changed: it does so with every second that passes. */
const MIN_SHIFT_MS = 5_000;
const MIN_SHIFT_OF_WAIT = 0.1;

interface Watch {
  processId: string;
  /** What was announced last. */
  last: Forecast | null;
  /** @returns whether the listener has taken it: one that lags is told when it has caught up */
  announce: (forecast: Forecast) => boolean;
}

/** Tells followers of waiting processes when their place in the queue changes: one look a second for all of them. */
@Injectable()
export class QueueAnnouncer implements OnApplicationShutdown {
  private readonly logger = new Logger(QueueAnnouncer.name);
  private readonly watches = new Map<AbortSignal, Watch>();
  private looking: ReturnType<typeof every> | null = null;

  constructor(private readonly forecast: QueueForecastService) {}

  /** Until the signal, which is also the watch's name, aborts. */
  start(watch: Watch, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.watches.set(signal, watch);
    signal.addEventListener('abort', () => this.stop(signal), { once: true });
    this.looking ??= every(
      INTERVAL_MS,
      () => this.look(),
      (err) => this.logger.debug({ err }),
    );
  }

  stop(signal: AbortSignal): void {
    this.watches.delete(signal);
    if (this.watches.size === 0) this.onApplicationShutdown();
  }

  onApplicationShutdown(): void {
    this.looking?.stop();
    this.looking = null;
  }

  private async look(): Promise<void> {
    const ids = new Set([...this.watches.values()].map(({ processId }) => processId));
    const forecasts = await this.forecast.find([...ids]);
    for (const watch of this.watches.values()) {
      const forecast = forecasts.get(watch.processId);
      if (!forecast || (watch.last && !hasChanged(watch.last, forecast))) continue;
      if (watch.announce(forecast)) watch.last = forecast;
    }
  }
}

function hasChanged(last: Forecast, next: Forecast): boolean {
  if (last.position !== next.position) return true;
  if (!last.estimatedStartAt || !next.estimatedStartAt)
    return last.estimatedStartAt !== next.estimatedStartAt;
  const waitMs = Math.max(0, next.estimatedStartAt.getTime() - Date.now());
  const shiftMs = Math.abs(next.estimatedStartAt.getTime() - last.estimatedStartAt.getTime());
  return shiftMs > Math.max(MIN_SHIFT_MS, MIN_SHIFT_OF_WAIT * waitMs);
}
