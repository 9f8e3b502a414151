import { Inject, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import type { ClaudeEngine } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { ENGINE } from './engine.provider.js';
import { ProcessWorker } from './process-worker.js';
import { ANNOUNCE_INTERVAL_MS, WorkerDirectory } from './worker-directory.js';

/** Keeps this worker in the directory. */
@Injectable()
export class WorkerAnnouncer implements OnApplicationBootstrap {
  private readonly logger = new Logger(WorkerAnnouncer.name);
  private timer: NodeJS.Timeout | null = null;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    @Inject(ENGINE) private readonly engine: ClaudeEngine,
    private readonly worker: ProcessWorker,
    private readonly directory: WorkerDirectory,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    this.timer = setInterval(() => void this.announce(), ANNOUNCE_INTERVAL_MS);
    this.directory.onReady(() => {
      if (this.timer) void this.announce();
    });
    await this.announce();
  }

  async stop(): Promise<void> {
    if (this.timer) clearInterval(this.timer);
    this.timer = null;
    await this.directory.leave(this.worker.id).catch((err: unknown) => this.logger.debug({ err }));
  }

  private async announce(): Promise<void> {
    const { total, busy } = this.worker.slots;
    try {
      const { tools, ...engine } = await this.engine.probe();
      await this.directory.announce({
        id: this.worker.id,
        at: Date.now(),
        slots: total,
        busySlots: busy,
        demo: this.config.demo,
        engine: { ...engine, tools: [...tools] },
      });
    } catch (err) {
      this.logger.debug({ err }, 'The worker could not announce itself.');
    }
  }
}
