import { Inject, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { every } from '../platform/timing/every.js';
import { orLate } from '../platform/timing/or-late.js';
import { ProcessChannel } from './process-channel.js';
import { ProcessClaimsRepository } from './process-claims.repository.js';
import { ProcessEndingsRepository } from './process-endings.repository.js';
import type { Run } from './process-log.repository.js';
import { ProcessWorker } from './process-worker.js';
import { ProcessesQueue } from './processes.queue.js';
import { afterFence } from './run-verdict.js';

const INTERVAL_MS = 1_000;
const LAST_LOOK_MS = 2_000;

/**
 * Gives back what the database takes for this worker's, and what it does not run: a run that it had to give up because its lease
 * could not be proven, a claim whose answer was lost. The reconciler would do so as well, but it must take the worker for dead,
 * and suspect the process of having killed it.
 */
@Injectable()
export class StrayRuns implements OnApplicationBootstrap {
  private readonly logger = new Logger(StrayRuns.name);
  private looking: ReturnType<typeof every> | null = null;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly worker: ProcessWorker,
    private readonly claims: ProcessClaimsRepository,
    private readonly endings: ProcessEndingsRepository,
    private readonly queue: ProcessesQueue,
    private readonly channel: ProcessChannel,
  ) {}

  onApplicationBootstrap(): void {
    this.looking = every(
      Math.min(INTERVAL_MS, this.config.LEASE_HEARTBEAT_MS),
      () => this.giveBackAll(),
      (err) => this.logger.debug({ err }, 'Stray runs could not be looked for; trying again.'),
    );
  }

  /** After a last look, which does not wait for a database that is away. */
  async stop(): Promise<void> {
    this.looking?.stop();
    await orLate(
      this.giveBackAll().catch((err: unknown) => this.logger.debug({ err })),
      LAST_LOOK_MS,
    );
  }

  private async giveBackAll(): Promise<void> {
    for (const run of await this.claims.findOwned(this.worker.id)) {
      if (!this.worker.mayHold(run)) await this.giveBack(run);
    }
  }

  private async giveBack(run: Run): Promise<void> {
    const concluded = await this.endings.conclude(run, [], afterFence);
    if (!concluded) return;
    const { processId } = run;
    this.logger.warn({ processId }, 'A process that this worker does not run is given back.');
    this.channel.publishEvents(processId, concluded.events);
    if (concluded.next) void this.queue.dispatch([concluded.next]);
  }
}
