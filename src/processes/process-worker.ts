import { hostname } from 'node:os';
import { Inject, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import { RunAbort, type RunAbortKind } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { ProcessChannel } from './process-channel.js';
import { ProcessRunner } from './process-runner.js';
import { ProcessesRepository } from './processes.repository.js';

/** How long a claim holds without a sign of life. */
const LEASE_MS = 15_000;
const HEARTBEAT_MS = 5_000;

interface LiveRun {
  fence: number;
  controller: AbortController;
  ended: Promise<void>;
}

/** Claims processes, keeps their leases and hears of their cancels. */
@Injectable()
export class ProcessWorker implements OnApplicationBootstrap {
  readonly id = `${hostname()}:${process.pid}:${uuid()}`;
  private readonly logger = new Logger(ProcessWorker.name);
  private readonly live = new Map<string, LiveRun>();
  private heartbeat: NodeJS.Timeout | null = null;
  private drainRequested = false;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly processes: ProcessesRepository,
    private readonly runner: ProcessRunner,
    private readonly channel: ProcessChannel,
  ) {}

  get slots(): { total: number; busy: number } {
    return { total: this.config.WORKER_CONCURRENCY, busy: this.live.size };
  }

  onApplicationBootstrap(): void {
    this.heartbeat = setInterval(() => void this.renewLeases(), HEARTBEAT_MS);
    this.channel
      .subscribeCancels((processId) => this.abort(processId, 'cancelled'))
      .catch((err: unknown) => this.logger.warn({ err }));
  }

  /** Claims the process whose turn it is and runs it to its end. Does nothing where none waits. */
  async runNext(): Promise<void> {
    if (this.isDraining()) return;
    const claimed = await this.processes.claim(this.id, LEASE_MS);
    if (!claimed) return;
    const controller = new AbortController();
    const ended = this.runner.run(claimed, controller);
    this.live.set(claimed.id, { fence: claimed.fence, controller, ended });
    if (this.isDraining()) this.abort(claimed.id, 'shutdown');
    await ended.finally(() => this.live.delete(claimed.id));
  }

  /** Claims no more, and waits for what runs until the signal aborts; then ends it. Resolves when nothing is left. */
  async drain(signal: AbortSignal): Promise<void> {
    this.drainRequested = true;
    const abortAll = () => {
      for (const id of this.live.keys()) this.abort(id, 'shutdown');
    };
    if (signal.aborted) abortAll();
    else signal.addEventListener('abort', abortAll, { once: true });
    await Promise.allSettled([...this.live.values()].map(({ ended }) => ended));
    signal.removeEventListener('abort', abortAll);
    if (this.heartbeat) clearInterval(this.heartbeat);
  }

  private isDraining(): boolean {
    return this.drainRequested;
  }

  private abort(processId: string, kind: RunAbortKind): void {
    this.live.get(processId)?.controller.abort(new RunAbort(kind));
  }

  /** Also finds the cancels whose message got lost, and ends what another worker has taken over. */
  private async renewLeases(): Promise<void> {
    const renewing = [...this.live];
    if (renewing.length === 0) return;
    try {
      const renewed = await this.processes.renewLeases(
        this.id,
        renewing.map(([id]) => id),
        LEASE_MS,
      );
      const byId = new Map(renewed.map((row) => [row.id, row]));
      for (const [id, { fence }] of renewing) {
        const row = byId.get(id);
        if (row?.fence !== fence || row.cancelRequested) this.abort(id, 'cancelled');
      }
    } catch (err) {
      this.logger.warn({ err }, 'The leases could not be renewed.');
    }
  }
}
