import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import type { ClaudeEngine } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { SessionsEvents } from '../sessions/sessions.events.js';
import { every } from '../platform/timing/every.js';
import { ENGINE } from './engine.provider.js';
import { ProcessRetentionRepository } from './process-retention.repository.js';

const BATCH = 500;
/** A folder may be made before its session is to be seen: it has this long. */
const GRACE_MS = 60 * 60 * 1000;

/** Removes, on each worker, the workspaces of sessions that are no more, and the CLIs that wait in them. */
@Injectable()
export class WorkspaceSweep implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly logger = new Logger(WorkspaceSweep.name);
  private repeated: ReturnType<typeof every> | null = null;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    @Inject(ENGINE) private readonly engine: ClaudeEngine,
    private readonly retention: ProcessRetentionRepository,
    private readonly sessions: SessionsEvents,
  ) {}

  onApplicationBootstrap(): void {
    this.repeated = every(
      this.config.RETENTION_INTERVAL_MS,
      () => this.sweep(),
      (err) => this.logger.warn({ err }, 'The workspaces could not be swept; the next sweep tries again.'),
    );
    // One that is not told ends when it has been idle for long enough.
    this.sessions
      .onRemoved((key) => void this.engine.forgetWorkspace(key))
      .catch((err: unknown) => this.logger.warn({ err }));
  }

  onApplicationShutdown(): void {
    this.repeated?.stop();
  }

  private async sweep(): Promise<void> {
    const workspaces = await this.engine.listWorkspaces();
    const settled = workspaces.filter(({ changedAt }) => changedAt.getTime() < Date.now() - GRACE_MS);
    for (let start = 0; start < settled.length; start += BATCH) {
      const keys = settled.slice(start, start + BATCH).map(({ key }) => key);
      for (const key of await this.retention.findUnusedWorkspaces(keys)) await this.remove(key);
    }
  }

  /** Never rejects: one that cannot be removed must not keep the others. */
  private async remove(key: string): Promise<void> {
    await this.engine
      .removeWorkspace(key)
      .catch((err: unknown) => this.logger.warn({ err, key }, 'A workspace could not be removed.'));
  }
}
