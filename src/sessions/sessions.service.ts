import { Injectable } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import type { Caller } from '../platform/access/caller.js';
import { AppError } from '../platform/errors/app-error.js';
import type { PageQuery } from '../platform/http/common.schemas.js';
import { decodeCursor, toPage } from '../platform/http/keyset-cursor.js';
import { toSession } from './session-view.js';
import { SessionWorkspaces } from './session-workspaces.js';
import { SessionsEvents } from './sessions.events.js';
import { heldSession, madeSession, SessionsRepository } from './sessions.repository.js';
import type {
  CreateSessionRequest,
  ForkSessionRequest,
  MessagesQuery,
  Session,
  SessionMessagePage,
  SessionPage,
  UpdateSessionRequest,
} from './sessions.schemas.js';
import { TranscriptsService } from './transcripts.service.js';

/** Where a process runs: `id` names its session, which may not be there yet. */
export type SessionChoice =
  | { kind: 'new'; id: string }
  | { kind: 'continued'; id: string }
  | { kind: 'forked'; id: string; originId: string };

type Transaction = Parameters<SessionsRepository['forkWithin']>[0];

/** Makes, finds, forks and deletes conversations, for those they belong to. */
@Injectable()
export class SessionsService {
  constructor(
    private readonly sessions: SessionsRepository,
    private readonly transcripts: TranscriptsService,
    private readonly workspaces: SessionWorkspaces,
    private readonly events: SessionsEvents,
  ) {}

  async create(caller: Caller, { title }: CreateSessionRequest): Promise<Session> {
    const id = uuid();
    await this.sessions.create({ id, userId: caller.userId, title });
    return this.find(caller, id);
  }

  async list(caller: Caller, { cursor, limit }: PageQuery): Promise<SessionPage> {
    const position = cursor === undefined ? null : decodeCursor(cursor);
    const rows = await this.sessions.listOf(caller.userId, position, limit + 1);
    const figures = await this.sessions.findFigures(rows.map(({ id }) => id));
    return toPage(rows, limit, (row) => toSession(row, figures.get(row.id)));
  }

  /** @throws AppError `session_not_found`, also for what is another's */
  async find(caller: Caller, id: string): Promise<Session> {
    const row = await this.sessions.findOwned(ownerFor(caller), id);
    if (!row) throw sessionNotFound(id);
    return toSession(row, (await this.sessions.findFigures([id])).get(id));
  }

  async rename(caller: Caller, id: string, { title }: UpdateSessionRequest): Promise<Session> {
    await this.find(caller, id);
    if (!(await this.sessions.rename(id, title))) throw sessionNotFound(id);
    return this.find(caller, id);
  }

  /** Deletes what was said in it, and its workspace. Its processes stay. @throws AppError `session_busy` */
  async remove(caller: Caller, id: string): Promise<void> {
    const session = await this.sessions.findOwned(ownerFor(caller), id);
    if (!session) throw sessionNotFound(id);
    const removed = await this.sessions.remove(id);
    if (removed === 'missing') throw sessionNotFound(id);
    if (removed === 'busy') throw busy(id, 'runs or waits');
    if (session.workspaceKey === null) return;
    this.events.tellRemoved(session.workspaceKey);
    await this.workspaces.remove(session.workspaceKey);
  }

  /** Of one's own alone: a fork belongs to whoever makes it. */
  async fork(caller: Caller, originId: string, { head, title }: ForkSessionRequest): Promise<Session> {
    const fork = { id: uuid(), userId: caller.userId, originId, head: head ?? null, title };
    await this.prepare(caller, { kind: 'forked', ...fork });
    requireForked(await this.sessions.fork(fork), originId);
    return this.find(caller, fork.id);
  }

  /** What was said in it, as far as it was kept, from the beginning. */
  async readMessages(caller: Caller, id: string, query: MessagesQuery): Promise<SessionMessagePage> {
    await this.find(caller, id);
    return this.transcripts.readMessages(id, query);
  }

  /**
   * What comes before the transaction that opens a session: a fork's files are there before anybody can run in it. Where it
   * does not come to the fork after all, the sweep removes them.
   * @throws AppError
   */
  async prepare({ userId }: Caller, session: SessionChoice): Promise<void> {
    if (session.kind !== 'forked') return;
    const { id, originId } = session;
    const origin = await this.sessions.findOwned(userId, originId);
    if (!origin) throw sessionNotFound(originId);
    if (await this.sessions.isRunning(originId)) throw busy(originId, 'runs');
    if (origin.workspaceKey !== null) await this.workspaces.copy(origin.workspaceKey, id);
  }

  /**
   * Makes the fork that a process asks for, within the transaction that makes the process.
   * @throws AppError
   */
  async makeFork(
    transaction: Transaction,
    userId: string,
    { id, originId }: Extract<SessionChoice, { kind: 'forked' }>,
  ): Promise<void> {
    const fork = { id, userId, originId, head: null, title: null };
    requireForked(await this.sessions.forkWithin(transaction, fork), originId);
  }
}

/** Whose sessions the caller may see: null for everybody's. */
const ownerFor = (caller: Caller) => (caller.isAdministrator ? null : caller.userId);

export const sessionNotFound = (id: string) =>
  new AppError('session_not_found', `There is no session ${id}.`);

const busy = (id: string, does: string) =>
  new AppError('session_busy', `A process of the session ${id} ${does}.`);

function requireForked(forked: Awaited<ReturnType<SessionsRepository['fork']>>, originId: string): void {
  switch (forked.kind) {
    case 'forked':
      return;
    case 'missing':
      throw sessionNotFound(originId);
    case 'busy':
      throw busy(originId, 'runs');
    case 'too_short': {
      const detail = `the session has ended ${forked.head} turns`;
      const errors = [{ pointer: '/head', code: 'too_big', detail }];
      throw new AppError('validation_failed', `/head: ${detail}`, { errors });
    }
  }
}

/**
 * Opens the session of a process that is being made: a part of the statement that makes it, which answers the id of the session,
 * or nothing where there is none.
 * @param condition under which one is made; a fork is there already
 */
export const openSession = (
  userId: string,
  { kind, id }: SessionChoice,
  condition: Parameters<typeof madeSession>[1],
) => (kind === 'new' ? madeSession({ id, userId }, condition) : heldSession({ id, userId }));
