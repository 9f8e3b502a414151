import { Inject, Injectable, Logger } from '@nestjs/common';
import { EngineFolders } from '../../libs/claude-engine/index.js';
import {
  changesBetween,
  measureWorkspace,
  takeSnapshot,
  type WorkspaceSnapshot,
} from '../../libs/workspace-files/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import type { FilesChanged } from './processes.schemas.js';

const MIB = 1024 * 1024;
/** How often what a run's workspace holds is counted; less often where to count takes long. */
const COUNT_EVERY_MS = 2_000;
const REST_FACTOR = 20;
const MAX_ITEMS = 100;
const MAX_CHARACTERS = 16 * 1024;

/** The workspaces that runs work in, on this server. */
@Injectable()
export class RunWorkspaces {
  private readonly logger = new Logger(RunWorkspaces.name);
  private readonly folders: EngineFolders;
  private readonly quotaBytes: number;

  constructor(@Inject(CONFIG) { engineDirectory, WORKSPACE_QUOTA_MB }: ServerConfig) {
    this.folders = new EngineFolders(engineDirectory);
    this.quotaBytes = WORKSPACE_QUOTA_MB * MIB;
  }

  /** @param onOverQuota is told once, when the workspace holds more than it may */
  watch(key: string, onOverQuota: () => void): RunWorkspace {
    return new RunWorkspace(this.folders.workspaceAt(key), {
      quotaBytes: this.quotaBytes,
      onOverQuota,
      onTrouble: (err) => this.logger.warn({ err, key }, 'A workspace could not be looked through.'),
    });
  }
}

interface WatchOptions {
  quotaBytes: number;
  onOverQuota: () => void;
  onTrouble: (error: unknown) => void;
}

/** One workspace, from just before a run acts in it until that is over. */
export class RunWorkspace {
  private readonly before: Promise<WorkspaceSnapshot | null>;
  private timer: NodeJS.Timeout | null = null;
  private isOver = false;

  constructor(
    private readonly folder: string,
    private readonly options: WatchOptions,
  ) {
    this.before = this.look();
  }

  /** To be awaited before the run acts. @throws Error when it must not: the workspace is over its quota already */
  async begin(): Promise<void> {
    const before = await this.before;
    if (before && before.bytes > this.options.quotaBytes) {
      this.options.onOverQuota();
      throw new Error('The workspace is over its quota.');
    }
    this.countLater(COUNT_EVERY_MS);
  }

  /** What became of its files since; null where that is not known. */
  async changes(): Promise<FilesChanged | null> {
    const [before, after] = [await this.before, await this.look()];
    const changes = before && after && changesBetween(before, after);
    if (!changes) return null;
    let room = MAX_CHARACTERS;
    const items = changes.slice(0, MAX_ITEMS).filter(({ path }) => (room -= path.length) >= 0);
    return { count: changes.length, items };
  }

  stop(): void {
    this.isOver = true;
    if (this.timer) clearTimeout(this.timer);
  }

  private look(): Promise<WorkspaceSnapshot | null> {
    return takeSnapshot(this.folder).catch((error: unknown) => {
      this.options.onTrouble(error);
      return null;
    });
  }

  private countLater(ms: number): void {
    if (this.isOver) return;
    this.timer = setTimeout(() => void this.count(), ms);
  }

  private async count(): Promise<void> {
    const startedAt = performance.now();
    const { quotaBytes, onOverQuota, onTrouble } = this.options;
    try {
      if ((await measureWorkspace(this.folder, quotaBytes)) > quotaBytes) {
        onOverQuota();
        return;
      }
    } catch (error) {
      onTrouble(error);
    }
    this.countLater(Math.max(COUNT_EVERY_MS, REST_FACTOR * (performance.now() - startedAt)));
  }
}
