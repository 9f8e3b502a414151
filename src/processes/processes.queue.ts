import { InjectQueue } from '@nestjs/bull';
import { Injectable, Logger } from '@nestjs/common';
import type { Queue } from 'bull';
import { z } from 'zod';
import { ProcessesRepository } from './processes.repository.js';

export const PROCESSES_QUEUE = 'processes';

/** A wake-up: a process waits for a slot. Which one the slot takes is the database's say. */
export const ProcessJobSchema = z.object({ processId: z.uuid() });
export type ProcessJob = z.output<typeof ProcessJobSchema>;

const QUEUE_TIMEOUT_MS = 2_000;

@Injectable()
export class ProcessesQueue {
  private readonly logger = new Logger(ProcessesQueue.name);

  constructor(
    @InjectQueue(PROCESSES_QUEUE) private readonly queue: Queue<ProcessJob>,
    private readonly processes: ProcessesRepository,
  ) {}

  /** Wakes a slot for the process. Never fails: what does not get through is dispatched again by the sweep. */
  async dispatch({ id, attempt }: { id: string; attempt: number }): Promise<void> {
    try {
      const job = this.queue.add(
        { processId: id },
        { jobId: `${id}#${attempt}`, attempts: 1, removeOnComplete: true, removeOnFail: true },
      );
      if (await within(job, QUEUE_TIMEOUT_MS)) await this.processes.markDispatched(id);
    } catch (err) {
      this.logger.warn({ err, processId: id }, 'The wake-up did not get through; the sweep sends it again.');
    }
  }

  async counts(): Promise<{ waiting: number; active: number }> {
    const { waiting, active } = await this.queue.getJobCounts();
    return { waiting, active };
  }
}

/** Bull waits for Redis for ever. */
async function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => (timer = setTimeout(resolve, ms, false)));
  return Promise.race([promise.then(() => true), late]).finally(() => clearTimeout(timer));
}
