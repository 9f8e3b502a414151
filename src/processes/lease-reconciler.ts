import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { isTransient } from '../platform/prisma/database-failure.js';
import { ProcessChannel } from './process-channel.js';
import { ProcessClaimsRepository } from './process-claims.repository.js';
import { ProcessEndingsRepository } from './process-endings.repository.js';
import type { Run } from './process-log.repository.js';
import type { Outcome } from './process-outcome.js';
import { ProcessesQueue } from './processes.queue.js';
import { afterLoss } from './run-verdict.js';

const BATCH = 100;

const QUEUE_TIMEOUT: Outcome = {
  status: 'failed',
  error: {
    code: 'queue_timeout',
    detail: 'It waited for its start for longer than its queueTimeoutMs.',
    retryable: true,
    retryAfterMs: null,
  },
};

/** Mends what a crash left: on every server, without a leader, since each step is a compare-and-set. */
@Injectable()
export class LeaseReconciler implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly logger = new Logger(LeaseReconciler.name);
  private timer: NodeJS.Timeout | null = null;
  /** On the monotonic clock. Workers that were cut off as we were get the time of a lease to show that they live. */
  private judgeFrom = 0;
  private answeredAt = performance.now();

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly claims: ProcessClaimsRepository,
    private readonly endings: ProcessEndingsRepository,
    private readonly queue: ProcessesQueue,
    private readonly channel: ProcessChannel,
  ) {}

  onApplicationBootstrap(): void {
    this.answeredAt = performance.now();
    this.schedule();
  }

  onApplicationShutdown(): void {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
  }

  private schedule(): void {
    this.timer = setTimeout(() => {
      void this.tick().finally(() => {
        if (this.timer) this.schedule();
      });
    }, this.config.RECONCILER_INTERVAL_MS);
  }

  private async tick(): Promise<void> {
    try {
      const expired = await this.claims.findExpired(BATCH);
      this.heedSilence();
      if (performance.now() >= this.judgeFrom) await this.mend(expired, (run) => this.recover(run));
      await this.mend(await this.claims.findOverdue(BATCH), (id) => this.failOverdue(id));
      // Wake-ups are repeated without end, and cost nothing where they are there already: what a crash or a flushed Redis
      // lost is found by looking at what waits, not at what was sent.
      void this.queue.sweep(await this.claims.findEligible(BATCH));
    } catch (err) {
      this.logger.warn({ err }, 'The sweep failed; the next one tries again.');
    }
  }

  /** What leases outlive is no reason to wait, however often it comes: each wait would be added to the one before. */
  private heedSilence(): void {
    const now = performance.now();
    if (now - this.answeredAt > this.config.LEASE_FENCE_MS) this.judgeFrom = now + this.config.LEASE_TTL_MS;
    this.answeredAt = now;
  }

  /** One process that cannot be mended does not keep the others waiting. */
  private async mend<T>(all: T[], mendOne: (one: T) => Promise<void>): Promise<void> {
    for (const one of all) {
      try {
        await mendOne(one);
        this.answeredAt = performance.now();
      } catch (err) {
        if (isTransient(err)) throw err;
        this.logger.error({ err, process: one }, 'A process could not be mended.');
      }
    }
  }

  private async recover(run: Run): Promise<void> {
    const concluded = await this.endings.takeOver(run, afterLoss);
    if (!concluded) return;
    const { processId } = run;
    this.logger.warn({ processId, isGivenBack: concluded.next !== null }, 'The worker of a process is lost.');
    this.channel.publishEvents(processId, concluded.events);
  }

  private async failOverdue(processId: string): Promise<void> {
    const events = await this.endings.failOverdue(processId, QUEUE_TIMEOUT);
    if (events) this.channel.publishEvents(processId, events);
  }
}
