import { Injectable, Logger, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { ProcessChannel } from './process-channel.js';
import { type Outcome, ProcessLogRepository } from './process-log.repository.js';
import { ProcessesQueue } from './processes.queue.js';
import { ProcessesRepository } from './processes.repository.js';

const TICK_MS = 2_000;
/** How long a submit has to dispatch its own process before the sweep does it. */
const DISPATCH_GRACE_MS = 2_000;
/** After this a wake-up counts as lost; sending it again while it still waits changes nothing. */
const REDISPATCH_MS = 30_000;
const BATCH = 100;

const WORKER_LOST: Outcome = {
  status: 'failed',
  error: {
    code: 'worker_lost',
    detail: 'The worker that ran this has not been heard of.',
    retryable: true,
    retryAfterMs: null,
  },
};

/** Mends what a crash left: on every server, without a leader, since each step is a compare-and-set. */
@Injectable()
export class LeaseReconciler implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly logger = new Logger(LeaseReconciler.name);
  private timer: NodeJS.Timeout | null = null;

  constructor(
    private readonly processes: ProcessesRepository,
    private readonly log: ProcessLogRepository,
    private readonly queue: ProcessesQueue,
    private readonly channel: ProcessChannel,
  ) {}

  onApplicationBootstrap(): void {
    this.schedule();
  }

  onApplicationShutdown(): void {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
  }

  private schedule(): void {
    this.timer = setTimeout(() => {
      this.tick()
        .catch((err: unknown) => this.logger.warn({ err }, 'The sweep failed; the next one tries again.'))
        .finally(() => {
          if (this.timer) this.schedule();
        });
    }, TICK_MS);
  }

  private async tick(): Promise<void> {
    for (const { id, fence } of await this.processes.findExpired(BATCH)) await this.recover(id, fence);
    const undispatched = await this.processes.findUndispatched(DISPATCH_GRACE_MS, REDISPATCH_MS, BATCH);
    for (const waiting of undispatched) await this.queue.dispatch(waiting);
  }

  // An agent has side effects: what has started is not run again unasked.
  private async recover(processId: string, fence: number): Promise<void> {
    const run = { processId, fence };
    if (await this.log.requeue(run)) return;
    const events = await this.log.giveUp(run, WORKER_LOST);
    if (!events) return;
    this.logger.warn({ processId }, 'A process was given up: its worker is lost.');
    this.channel.publishEvents(processId, events);
  }
}
