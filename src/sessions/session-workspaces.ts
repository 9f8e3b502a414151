import { Inject, Injectable, Logger } from '@nestjs/common';
import { EngineFolders } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';

/** The folders of sessions, as far as they lie on this server. On others, a worker's sweep removes those of no session. */
@Injectable()
export class SessionWorkspaces {
  private readonly logger = new Logger(SessionWorkspaces.name);
  private readonly folders: EngineFolders;

  constructor(@Inject(CONFIG) { engineDirectory }: ServerConfig) {
    this.folders = new EngineFolders(engineDirectory);
  }

  /** Does nothing where the origin's folder is not here. */
  async copy(originKey: string, key: string): Promise<void> {
    await this.folders.copyWorkspace(originKey, key);
  }

  /** Never rejects: what cannot be removed now is swept. */
  async remove(key: string): Promise<void> {
    await this.folders
      .removeWorkspace(key)
      .catch((err: unknown) => this.logger.warn({ err, key }, 'A workspace could not be removed.'));
  }
}
