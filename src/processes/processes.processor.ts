import { InjectQueue } from '@nestjs/bull';
import { Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import type { Job, Queue } from 'bull';
import type { ClaudeEngine } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { ENGINE } from './engine.provider.js';
import { ProcessWorker } from './process-worker.js';
import { type ProcessJob, ProcessJobSchema, PROCESSES_QUEUE } from './processes.queue.js';

/** Takes wake-ups from Bull, as many at a time as the worker has slots. (`@Process` could not read that from the configuration.) */
@Injectable()
export class ProcessesProcessor implements OnApplicationBootstrap {
  private readonly pausing = new AbortController();

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    @InjectQueue(PROCESSES_QUEUE) private readonly queue: Queue<ProcessJob>,
    @Inject(ENGINE) private readonly engine: ClaudeEngine,
    private readonly worker: ProcessWorker,
  ) {}

  onApplicationBootstrap(): void {
    void this.queue.process(this.config.WORKER_CONCURRENCY, async (job: Job<ProcessJob>) => {
      ProcessJobSchema.parse(job.data);
      // While the Messages API fails nothing is claimed: it waits in the queue, where it can be cancelled, and loses nothing.
      const leave = await this.engine.enter(this.pausing.signal);
      if (leave) await this.worker.runNext().finally(leave);
    });
  }

  /** Takes no more wake-ups; those that are being served go on. */
  async pause(): Promise<void> {
    this.pausing.abort();
    await this.queue.pause(true, true);
  }
}
