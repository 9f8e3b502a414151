import { Injectable } from '@nestjs/common';
import { inTime } from '../platform/timing/or-late.js';
import { ProcessesQueue } from './processes.queue.js';
import { type QueuePlace, QueuePlacesRepository, type QueueTraffic } from './queue-places.repository.js';
import { WorkerDirectory } from './worker-directory.js';

const DIRECTORY_TIMEOUT_MS = 1_000;

export interface Forecast {
  position: number;
  /** Null where there is no ground for a guess: no worker, nothing that ended lately, a paused queue. */
  estimatedStartAt: Date | null;
}

interface Pace extends QueueTraffic {
  slots: number;
}

/** Says when what waits will start, as far as that can be told. */
@Injectable()
export class QueueForecastService {
  constructor(
    private readonly places: QueuePlacesRepository,
    private readonly directory: WorkerDirectory,
    private readonly queue: ProcessesQueue,
  ) {}

  /** For those of these that wait. */
  async find(ids: string[]): Promise<Map<string, Forecast>> {
    if (ids.length === 0) return new Map();
    const [places, pace] = await Promise.all([this.places.find(ids), this.pace()]);
    return new Map([...places].map(([id, place]) => [id, forecastOf(place, pace)]));
  }

  /** Of a place that is known. Never fails. */
  async of(place: QueuePlace): Promise<Forecast> {
    return forecastOf(place, await this.pace().catch(() => null));
  }

  /** How long until the queue is shorter by one, or what a user has in it. @param userId null for the whole queue */
  async msUntilNextStart(userId: string | null): Promise<number | null> {
    const [place, pace] = await Promise.all([this.places.findFirst(userId), this.pace()]);
    const startAt = place && forecastOf(place, pace).estimatedStartAt;
    return startAt && Math.max(0, startAt.getTime() - Date.now());
  }

  private async pace(): Promise<Pace | null> {
    const [slots, traffic] = await Promise.all([this.slots(), this.places.traffic()]);
    return slots === null ? null : { ...traffic, slots };
  }

  /** Of workers that take something; null where there is none, as far as Redis tells. */
  private async slots(): Promise<number | null> {
    const workers = await inTime(this.directory.list(), DIRECTORY_TIMEOUT_MS).catch(() => []);
    const slots = workers.reduce((total, worker) => total + worker.slots, 0);
    return slots === 0 || (await this.queue.isPaused()) !== false ? null : slots;
  }
}

/** With n slots that are all busy, one becomes free every n-th part of the time that a run takes. */
export function forecastOf({ position, retryAt }: QueuePlace, pace: Pace | null, now = Date.now()): Forecast {
  if (!pace) return { position, estimatedStartAt: null };
  const { slots, running, meanRunMs } = pace;
  const ahead = Math.max(0, position - Math.max(0, slots - running));
  if (ahead > 0 && meanRunMs === null) return { position, estimatedStartAt: null };
  const byTurn = now + (ahead * (meanRunMs ?? 0)) / slots;
  return { position, estimatedStartAt: new Date(Math.max(byTurn, retryAt?.getTime() ?? 0)) };
}
