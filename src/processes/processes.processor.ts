import { InjectQueue } from '@nestjs/bull';
import { Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import type { Job, Queue } from 'bull';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { ProcessWorker } from './process-worker.js';
import { type ProcessJob, ProcessJobSchema, PROCESSES_QUEUE } from './processes.queue.js';

/** Takes wake-ups from Bull, as many at a time as the worker has slots. (`@Process` could not read that from the configuration.) */
@Injectable()
export class ProcessesProcessor implements OnApplicationBootstrap {
  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    @InjectQueue(PROCESSES_QUEUE) private readonly queue: Queue<ProcessJob>,
    private readonly worker: ProcessWorker,
  ) {}

  onApplicationBootstrap(): void {
    void this.queue.process(this.config.WORKER_CONCURRENCY, async (job: Job<ProcessJob>) => {
      ProcessJobSchema.parse(job.data);
      await this.worker.runNext();
    });
  }

  /** Takes no more wake-ups; those that are being served go on. */
  async pause(): Promise<void> {
    await this.queue.pause(true, true);
  }
}
