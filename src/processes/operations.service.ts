import { Injectable } from '@nestjs/common';
import { type ProcessStatistics, ProcessStatisticsRepository } from './process-statistics.repository.js';
import { ProcessesQueue, type WakeUps } from './processes.queue.js';
import { type QueueDepth, QueuePlacesRepository } from './queue-places.repository.js';
import { WorkerDirectory, type WorkerStatus } from './worker-directory.js';

export type { ProcessStatistics, WorkerStatus };

export interface QueueState {
  depth: QueueDepth;
  /** Null, all three, while Redis does not answer. */
  wakeUps: WakeUps | null;
  isPaused: boolean | null;
  workers: WorkerStatus[] | null;
}

/** What operators look at and turn: figures of what ran, the queue, and the workers. Whoever asks has been authorised. */
@Injectable()
export class OperationsService {
  constructor(
    private readonly statistics: ProcessStatisticsRepository,
    private readonly places: QueuePlacesRepository,
    private readonly queue: ProcessesQueue,
    private readonly directory: WorkerDirectory,
  ) {}

  /** @param userId null for everybody's processes */
  statisticsSince(userId: string | null, windowMs: number): Promise<ProcessStatistics> {
    return this.statistics.since(userId, windowMs);
  }

  /** How many processes wait, over all users; null while the database does not answer. */
  async queueDepth(): Promise<number | null> {
    return this.statistics.countPending().catch(() => null);
  }

  /** The workers that have lately announced themselves; null while Redis does not answer. */
  async workers(): Promise<WorkerStatus[] | null> {
    return this.directory.list().catch(() => null);
  }

  async readQueue(): Promise<QueueState> {
    const [depth, wakeUps, isPaused, workers] = await Promise.all([
      this.places.depth(),
      this.queue.countWakeUps(),
      this.queue.isPaused(),
      this.workers(),
    ]);
    return { depth, wakeUps, isPaused, workers };
  }

  /** Null while Redis does not answer. */
  isQueuePaused(): Promise<boolean | null> {
    return this.queue.isPaused();
  }

  /** Nothing new runs, on no worker; what runs goes on, and submits are taken. @throws AppError `unavailable` */
  pauseQueue(): Promise<void> {
    return this.queue.pause();
  }

  /** @throws AppError `unavailable` */
  resumeQueue(): Promise<void> {
    return this.queue.resume();
  }
}
