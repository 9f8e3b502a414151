import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { every } from '../platform/timing/every.js';
import { ProcessRetentionRepository } from './process-retention.repository.js';

const BATCH = 50;

/** Lets go of what is past its days: on every server, without a leader, since whatever two do at once is done once. */
@Injectable()
export class RetentionSweep implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly logger = new Logger(RetentionSweep.name);
  private repeated: ReturnType<typeof every> | null = null;
  private isStopped = false;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly retention: ProcessRetentionRepository,
  ) {}

  onApplicationBootstrap(): void {
    this.repeated = every(
      this.config.RETENTION_INTERVAL_MS,
      () => this.sweep(),
      (err) =>
        this.logger.warn({ err }, 'What is past its days could not be let go of; the next sweep tries.'),
    );
  }

  onApplicationShutdown(): void {
    this.isStopped = true;
    this.repeated?.stop();
  }

  private async sweep(): Promise<void> {
    const { EVENT_RETENTION_DAYS, PROCESS_RETENTION_DAYS, SESSION_RETENTION_DAYS } = this.config;
    await this.retention.deleteExpiredKeys();
    if (PROCESS_RETENTION_DAYS > 0)
      await this.inBatches(async () => {
        const ids = await this.retention.findExpired(PROCESS_RETENTION_DAYS, BATCH);
        await this.retention.deleteProcesses(ids);
        return ids.length;
      });
    await this.inBatches(async () => {
      const ids = await this.retention.findUnpruned(EVENT_RETENTION_DAYS, BATCH);
      for (const id of ids) await this.retention.prune(id);
      return ids.length;
    });
    if (SESSION_RETENTION_DAYS > 0)
      await this.inBatches(() => this.retention.deleteEmptySessions(SESSION_RETENTION_DAYS, BATCH));
  }

  /** @param act says how much it found: less than a batch is the last */
  private async inBatches(act: () => Promise<number>): Promise<void> {
    while (!this.isStopped && (await act()) >= BATCH);
  }
}
