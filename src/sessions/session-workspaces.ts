import { Inject, Injectable, Logger } from '@nestjs/common';
import { lstat } from 'node:fs/promises';
import { EngineFolders, WorkspaceNotCopied } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { AppError } from '../platform/errors/app-error.js';

const WHY_NOT = {
  too_deep: 'The folders of the session lie too deep in one another to be copied.',
  too_large: 'The files of the session are too large, or too many, to be copied.',
};

/** The folders of sessions, as far as they lie on this server. On others, a worker's sweep removes those of no session. */
@Injectable()
export class SessionWorkspaces {
  private readonly logger = new Logger(SessionWorkspaces.name);
  private readonly folders: EngineFolders;

  constructor(@Inject(CONFIG) { engineDirectory }: ServerConfig) {
    this.folders = new EngineFolders(engineDirectory);
  }

  /** Where they lie. */
  get directory(): string {
    return this.folders.workspaces;
  }

  /** The folder with that name; null where there is none here. */
  async find(key: string): Promise<string | null> {
    const folder = this.folders.workspaceAt(key);
    const stat = await lstat(folder).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    });
    return stat && folder;
  }

  /** The folder with that name, made where it is missing. */
  make(key: string): Promise<string> {
    return this.folders.makeWorkspace(key);
  }

  /** Does nothing where the origin's folder is not here. @throws AppError `workspace_not_copied`, and leaves nothing */
  async copy(originKey: string, key: string): Promise<void> {
    try {
      await this.folders.copyWorkspace(originKey, key);
    } catch (cause) {
      if (!(cause instanceof WorkspaceNotCopied)) throw cause;
      throw new AppError('workspace_not_copied', WHY_NOT[cause.reason], { cause });
    }
  }

  /** Never rejects: what cannot be removed now is swept. */
  async remove(key: string): Promise<void> {
    await this.folders
      .removeWorkspace(key)
      .catch((err: unknown) => this.logger.warn({ err, key }, 'A workspace could not be removed.'));
  }
}
