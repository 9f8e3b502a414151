import { Inject, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { type ClaudeEngine, RunAbort } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { inTime } from '../platform/timing/or-late.js';
import { ENGINE } from './engine.provider.js';
import { ProcessChannel } from './process-channel.js';
import { type ProcessCommand, ProcessCommandsRepository } from './process-commands.repository.js';
import { ProcessLeasesRepository, type RenewedLease } from './process-leases.repository.js';
import type { Run } from './process-log.repository.js';
import type { RunInbox } from './run-inbox.js';
import type { RunLog } from './run-log.js';

/** A heartbeat that failed is soon tried again: the lease does not wait. */
const RETRY_MS = 500;
const ANSWER_TIMEOUT_MS = 2_000;
const WATCH_INTERVAL_MS = 250;

export interface LiveRun extends Run {
  log: RunLog;
  inbox: RunInbox;
  controller: AbortController;
  /** The harsher way, for when the run is not ours any more: a signal fires once, and may have done so gently. */
  killer: AbortController;
}

interface HeldRun extends LiveRun {
  /** When the last write that proved the lease was sent, on the monotonic clock: the lease holds from then on, at least. */
  provenAt: number;
}

/**
 * Keeps the leases of a worker, and brings its runs what lies in their inboxes. A run whose lease cannot be proven any more is
 * given up in time: its CLI is dead before anyone else may take the process.
 */
@Injectable()
export class LeaseKeeper implements OnApplicationBootstrap {
  private readonly logger = new Logger(LeaseKeeper.name);
  private readonly held = new Map<string, HeldRun>();
  private owner = '';
  private beatTimer: NodeJS.Timeout | null = null;
  private watchTimer: NodeJS.Timeout | null = null;
  private isWell = true;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    @Inject(ENGINE) private readonly engine: ClaudeEngine,
    private readonly leases: ProcessLeasesRepository,
    private readonly commands: ProcessCommandsRepository,
    private readonly channel: ProcessChannel,
  ) {}

  onApplicationBootstrap(): void {
    // At once: the engine's guard counts from the first heartbeat that it hears.
    this.scheduleBeat(0);
    this.watchTimer = setInterval(() => this.fence(), WATCH_INTERVAL_MS);
    this.channel
      .subscribeCommands((processId) => {
        if (this.held.has(processId)) void this.deliver([processId]);
      })
      .catch((err: unknown) => this.logger.warn({ err }));
  }

  /** Whether a lease whose claim was sent then can still be relied on. */
  isProven(provenAt: number): boolean {
    return performance.now() - provenAt < this.config.LEASE_FENCE_MS;
  }

  /** Whether the run is provably ours, now. It is given up where not: whoever acts for it asks before. */
  isHeld({ processId, fence }: Run): boolean {
    const run = this.held.get(processId);
    if (run?.fence !== fence) return false;
    this.giveUpUnlessProven(run);
    return !run.log.isLost;
  }

  /**
   * Resolves when the guard knows that this worker is well: it may have heard nothing while the database was away, and would kill
   * what is started now.
   * @throws Error while the database does not answer
   */
  async assureGuard(): Promise<void> {
    if (!this.isWell && !(await this.beat())) throw new Error('The database does not answer.');
  }

  hold(owner: string, run: LiveRun, claimSentAt: number): void {
    this.owner = owner;
    this.held.set(run.processId, { ...run, provenAt: claimSentAt });
  }

  /** The run is over. Its process may be held again by then: for its next attempt. */
  release({ processId, fence }: Run): void {
    if (this.held.get(processId)?.fence === fence) this.held.delete(processId);
  }

  stop(): void {
    if (this.beatTimer) clearTimeout(this.beatTimer);
    if (this.watchTimer) clearInterval(this.watchTimer);
    this.beatTimer = null;
    this.watchTimer = null;
  }

  private scheduleBeat(afterMs: number): void {
    this.beatTimer = setTimeout(() => {
      void this.beat().then((isWell) => {
        if (this.beatTimer) this.scheduleBeat(isWell ? this.config.LEASE_HEARTBEAT_MS : this.retryMs());
      });
    }, afterMs);
  }

  private retryMs(): number {
    return Math.min(RETRY_MS, this.config.LEASE_HEARTBEAT_MS);
  }

  private answerTimeoutMs(): number {
    return Math.min(ANSWER_TIMEOUT_MS, this.config.LEASE_HEARTBEAT_MS);
  }

  /** @returns whether the database has answered, where there was anything to ask */
  private async beat(): Promise<boolean> {
    this.isWell = await this.renew();
    // The engine's guard kills the CLIs of a worker that cannot do so itself: stopped, or stuck.
    if (this.isWell) this.engine.heartbeat();
    return this.isWell;
  }

  private async renew(): Promise<boolean> {
    const renewing = [...this.held.values()].filter(({ log }) => !log.hasConcluded && !log.isLost);
    if (renewing.length === 0) return true;
    const sentAt = performance.now();
    try {
      const renewal = this.leases.renew(this.owner, renewing, this.config.LEASE_TTL_MS);
      const renewed = new Map(
        (await inTime(renewal, this.answerTimeoutMs())).map((lease) => [lease.processId, lease]),
      );
      for (const run of renewing) this.see(run, renewed.get(run.processId), sentAt);
      // Not waited for: a question that is never answered must not keep the next heartbeat.
      void this.deliver([...renewed.keys()]);
      return true;
    } catch (err) {
      this.logger.warn({ err }, 'The leases could not be renewed; trying again.');
      return false;
    }
  }

  private see(run: HeldRun, lease: RenewedLease | undefined, sentAt: number): void {
    if (lease?.fence !== run.fence) {
      // What is being concluded is no longer running as soon as that is done.
      if (!run.log.isConcluding) run.log.lose();
      return;
    }
    run.provenAt = sentAt;
    // The row itself says so: whoever emptied the inbox may not have got the answer.
    if (lease.cancelRequested) run.controller.abort(new RunAbort('cancelled'));
  }

  /** Gives up what cannot be proven to be ours, while it still is. */
  private fence(): void {
    for (const run of this.held.values()) this.giveUpUnlessProven(run);
  }

  private giveUpUnlessProven({ processId, log, provenAt }: HeldRun): void {
    if (log.isLost || log.hasConcluded || this.isProven(provenAt)) return;
    this.logger.error({ processId }, 'The lease could not be renewed in time: the run is given up.');
    log.lose();
  }

  private async deliver(processIds: string[]): Promise<void> {
    const runs = processIds.flatMap((id) => this.held.get(id) ?? []);
    if (runs.length === 0) return;
    try {
      const commands = await this.commands.read(this.owner, runs);
      for (const run of runs) await this.commands.mark(run, this.handOver(run, commands));
    } catch (err) {
      this.logger.warn({ err }, 'The inboxes could not be looked into; the next heartbeat does.');
    }
  }

  /** @returns the ids of what is done, and need not be read again */
  private handOver(run: HeldRun, commands: ProcessCommand[]): string[] {
    const own = commands.filter(({ processId }) => processId === run.processId);
    return own.flatMap((command) => {
      const isDone = run.inbox.receive(command);
      if (isDone === null)
        this.logger.warn({ processId: run.processId, kind: command.kind }, 'A command of an unknown kind.');
      return isDone ? [command.id] : [];
    });
  }
}
