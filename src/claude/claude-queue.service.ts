import { Injectable } from '@nestjs/common';
import { OperationsService } from '../processes/operations.service.js';
import type { Queue } from './claude.schemas.js';

/** The queue, for those who operate it. */
@Injectable()
export class ClaudeQueueService {
  constructor(private readonly operations: OperationsService) {}

  async read(): Promise<Queue> {
    const { depth, wakeUps, isPaused, workers } = await this.operations.readQueue();
    const { oldestAgeMs, ...counts } = depth;
    return {
      depth: counts,
      oldestAgeMs,
      wakeUps,
      isPaused,
      workers: workers?.map(({ id, slots, busySlots }) => ({ id, slots, busySlots })) ?? null,
    };
  }

  async pause(): Promise<Queue> {
    await this.operations.pauseQueue();
    return this.read();
  }

  async resume(): Promise<Queue> {
    await this.operations.resumeQueue();
    return this.read();
  }
}
