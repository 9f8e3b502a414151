import { hostname } from 'node:os';
import { Inject, Injectable, Logger } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import { RunAbort } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { EventAppender } from './event-appender.js';
import { LeaseKeeper, type LiveRun } from './lease-keeper.js';
import { ProcessRunner } from './process-runner.js';
import { type ClaimedProcess, ProcessClaimsRepository } from './process-claims.repository.js';
import type { Run } from './process-log.repository.js';
import { RunInbox } from './run-inbox.js';

/** Claims processes and runs them, each in a slot. */
@Injectable()
export class ProcessWorker {
  readonly id = `${hostname()}:${process.pid}:${uuid()}`;
  private readonly logger = new Logger(ProcessWorker.name);
  private readonly live = new Set<LiveRun>();
  /** Of each slot that was woken, from the claim to the end of the run. */
  private readonly turns = new Set<Promise<void>>();
  /** How many answers of the database may name a run that is not live yet. */
  private claiming = 0;
  private drainRequested = false;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly claims: ProcessClaimsRepository,
    private readonly leases: LeaseKeeper,
    private readonly appender: EventAppender,
    private readonly runner: ProcessRunner,
  ) {}

  get slots(): { total: number; busy: number } {
    return { total: this.config.WORKER_CONCURRENCY, busy: this.live.size };
  }

  /** Whether it has this run, or may have been given it by a claim that is on its way. */
  mayHold({ processId, fence }: Run): boolean {
    const isIt = (run: LiveRun) => run.processId === processId && run.fence === fence;
    return this.claiming > 0 || [...this.live].some(isIt);
  }

  /** Claims the process whose turn it is and runs it to its end. Does nothing where none waits. */
  async runNext(): Promise<void> {
    if (this.isDraining()) return;
    const turn = this.takeTurn();
    this.turns.add(turn);
    await turn.finally(() => this.turns.delete(turn));
  }

  /**
   * Claims no more, and waits for what runs until the signal aborts; then ends it. Resolves when nothing is left, be it a claim
   * that is on its way.
   */
  async drain(signal: AbortSignal): Promise<void> {
    this.drainRequested = true;
    const abortAll = () => {
      for (const { controller } of this.live) controller.abort(new RunAbort('shutdown'));
    };
    if (signal.aborted) abortAll();
    else signal.addEventListener('abort', abortAll, { once: true });
    await Promise.allSettled([...this.turns]);
    signal.removeEventListener('abort', abortAll);
    this.leases.stop();
  }

  private async takeTurn(): Promise<void> {
    const taken = await this.claim();
    if (!taken) return;
    const { claimed, run } = taken;
    await this.runner.run(claimed, run).finally(() => {
      this.leases.release(run);
      this.live.delete(run);
    });
  }

  private async claim(): Promise<{ claimed: ClaimedProcess; run: LiveRun } | null> {
    await this.leases.assureGuard();
    const sentAt = performance.now();
    this.claiming += 1;
    try {
      const claimed = await this.claims.claim(this.id, this.config.LEASE_TTL_MS);
      if (!claimed) return null;
      const run = this.prepare(claimed);
      this.leases.hold(this.id, run, sentAt);
      this.live.add(run);
      if (this.isDraining() || !this.leases.isProven(sentAt)) run.controller.abort(new RunAbort('shutdown'));
      return { claimed, run };
    } finally {
      this.claiming -= 1;
    }
  }

  private prepare({ id: processId, fence, lastSeq }: ClaimedProcess): LiveRun {
    const [controller, killer] = [new AbortController(), new AbortController()];
    const cancel = () => controller.abort(new RunAbort('cancelled'));
    const inbox = new RunInbox().on('cancel', () => {
      cancel();
      return true;
    });
    const log = this.appender.open(
      { processId, fence, lastSeq },
      {
        onCancelRequested: cancel,
        onLost: () => {
          this.logger.warn({ processId, fence }, 'The run is given up; its CLI is killed.');
          controller.abort(new RunAbort('fenced'));
          killer.abort();
        },
      },
    );
    return { processId, fence, log, controller, killer, inbox };
  }

  private isDraining(): boolean {
    return this.drainRequested;
  }
}
