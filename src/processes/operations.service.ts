import { Injectable } from '@nestjs/common';
import { type ProcessStatistics, ProcessStatisticsRepository } from './process-statistics.repository.js';
import { WorkerDirectory, type WorkerStatus } from './worker-directory.js';

export type { ProcessStatistics, WorkerStatus };

/** What operators look at: figures of what ran, and the workers that run it. Whoever asks has been authorised. */
@Injectable()
export class OperationsService {
  constructor(
    private readonly statistics: ProcessStatisticsRepository,
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
}
