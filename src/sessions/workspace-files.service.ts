import type { Readable } from 'node:stream';
import { Inject, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import {
  type OpenedFile,
  sweepStaging,
  Workspace,
  WorkspaceFileError,
  type WorkspaceFileFault,
} from '../../libs/workspace-files/index.js';
import type { Caller } from '../platform/access/caller.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { AppError } from '../platform/errors/app-error.js';
import type { ErrorCode } from '../platform/errors/error-catalogue.js';
import { Turns } from '../platform/timing/turns.js';
import { SessionWorkspaces } from './session-workspaces.js';
import { SessionsRepository } from './sessions.repository.js';
import { SessionsService } from './sessions.service.js';
import type { FilesQuery, WorkspaceFilePage } from './workspace-files.schemas.js';

const MIB = 1024 * 1024;
/** What was left beside the workspaces is nobody's by then. */
const LEFTOVER_MS = 2 * 60 * 60 * 1000;

interface FileOfSession {
  id: string;
  path: string;
}

/** The files of sessions, up and down, as far as their workspaces lie on this server. */
@Injectable()
export class WorkspaceFilesService implements OnApplicationBootstrap {
  private readonly logger = new Logger(WorkspaceFilesService.name);
  private readonly turns = new Turns();

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly sessions: SessionsService,
    private readonly repository: SessionsRepository,
    private readonly workspaces: SessionWorkspaces,
  ) {}

  onApplicationBootstrap(): void {
    void sweepStaging(this.workspaces.directory, new Date(Date.now() - LEFTOVER_MS)).catch((err: unknown) =>
      this.logger.warn({ err }, 'What was left of uploads could not be removed.'),
    );
  }

  async list(caller: Caller, id: string, { cursor, limit }: FilesQuery): Promise<WorkspaceFilePage> {
    const folder = await this.find(caller, id);
    if (folder === null) return { items: [], nextCursor: null };
    const entries = await told(() => new Workspace(folder).list({ after: cursor, limit: limit + 1 }));
    const items = entries
      .slice(0, limit)
      .map(({ modifiedAt, ...entry }) => ({ ...entry, modifiedAt: modifiedAt.toISOString() }));
    return { items, nextCursor: entries.length > limit ? (items.at(-1)?.path ?? null) : null };
  }

  async open(caller: Caller, { id, path }: FileOfSession): Promise<OpenedFile> {
    const folder = await this.find(caller, id);
    if (folder === null) throw toAppError('missing');
    return told(() => new Workspace(folder).open(path));
  }

  /** @param length how many bytes are to come, as far as that is known */
  async write(
    caller: Caller,
    { id, path }: FileOfSession,
    { content, length }: { content: AsyncIterable<Buffer>; length: number | null },
  ): Promise<'added' | 'replaced'> {
    const quotaBytes = this.config.WORKSPACE_QUOTA_MB * MIB;
    const maxFileBytes = this.config.WORKSPACE_MAX_FILE_MB * MIB;
    const found = await this.find(caller, id);
    if (length !== null && length > maxFileBytes) throw toAppError('too_large');
    const folder = found ?? (await this.workspaces.make(id));
    const inTurn = <T>(act: () => Promise<T>) => this.turns.take(id, act);
    return told(() => new Workspace(folder).write(path, content, { quotaBytes, maxFileBytes }, inTurn));
  }

  async remove(caller: Caller, { id, path }: FileOfSession): Promise<void> {
    const folder = await this.find(caller, id);
    if (folder === null) throw toAppError('missing');
    await told(() => new Workspace(folder).remove(path));
  }

  async archive(caller: Caller, id: string): Promise<Readable> {
    const folder = (await this.find(caller, id)) ?? (await this.workspaces.make(id));
    return told(() => new Workspace(folder).archive());
  }

  /**
   * The folder of a session; null where it has none yet.
   * @throws AppError `session_not_found`; `workspace_elsewhere` where it has run, and the folder is not here
   */
  private async find(caller: Caller, id: string): Promise<string | null> {
    await this.sessions.find(caller, id);
    const folder = await this.workspaces.find(id);
    if (folder === null && (await this.repository.hasRun(id)))
      throw new AppError('workspace_elsewhere', 'The files of the session lie on another server.');
    return folder;
  }
}

const FAULTS: Record<WorkspaceFileFault, [ErrorCode, string]> = {
  path: ['validation_failed', 'The file system of the server does not take such a path.'],
  missing: ['file_not_found', 'There is no such file in the workspace.'],
  symlink: ['symlink_not_followed', 'There is a symlink on the path, and none is followed.'],
  not_a_file: [
    'not_a_file',
    'There is something else on the path than files and folders, or one for the other.',
  ],
  too_large: ['file_too_large', 'The file has more bytes than WORKSPACE_MAX_FILE_MB lets one have.'],
  full: ['workspace_full', 'The workspace would hold more than WORKSPACE_QUOTA_MB lets it.'],
  unreadable: ['file_unreadable', 'What ran in the workspace has taken the permission away that it needs.'],
  broken_off: ['bad_request', 'The upload broke off before its end.'],
  disk_full: ['unavailable', 'The server has no room for files.'],
};

function toAppError(fault: WorkspaceFileFault, cause?: unknown): AppError {
  const [code, detail] = FAULTS[fault];
  const errors = fault === 'path' ? [{ pointer: '/path', code: 'not_taken', detail }] : [];
  return new AppError(code, detail, { cause, errors });
}

/** What a workspace throws, in the words of the catalogue. */
async function told<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw error instanceof WorkspaceFileError ? toAppError(error.fault, error) : error;
  }
}
