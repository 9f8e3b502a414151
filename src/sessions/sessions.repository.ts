import { Injectable } from '@nestjs/common';
import { Prisma, type Session as SessionRow } from '../generated/prisma/client.js';
import { afterCursor, type KeysetPosition, NEWEST_FIRST } from '../platform/http/keyset-cursor.js';
import { PATIENT } from '../platform/prisma/connections.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { COUNTED_COST, countedTokens, type Usage } from './usage.schemas.js';

export type { SessionRow };

/** What the processes of a session come to. */
export interface SessionFigures {
  isBusy: boolean;
  processCount: number;
  usage: Usage | null;
  costUsd: number | null;
}

export interface NewFork {
  id: string;
  userId: string;
  originId: string;
  /** How many turns it begins with; null for all. */
  head: number | null;
  title: string | null;
}

export type Forked = { kind: 'forked' | 'missing' | 'busy' } | { kind: 'too_short'; head: number };

const KEPT = { deletedAt: null };

/** Owns `sessions`. Its transcripts are `TranscriptsRepository`'s, but for what is done to all of one at once. */
@Injectable()
export class SessionsRepository {
  constructor(private readonly prisma: PrismaService) {}

  async create(session: { id: string; userId: string; title: string | null }): Promise<void> {
    await createSession(this.prisma, session);
  }

  /** @param userId whose it must be; null for anybody's */
  findOwned(userId: string | null, id: string): Promise<SessionRow | null> {
    return this.prisma.session.findFirst({
      where: { id, ...KEPT, ...(userId === null ? {} : { userId }) },
    });
  }

  listOf(userId: string, position: KeysetPosition | null, limit: number): Promise<SessionRow[]> {
    return this.prisma.session.findMany({
      where: { userId, ...KEPT, ...afterCursor(position) },
      orderBy: [...NEWEST_FIRST],
      take: limit,
    });
  }

  /** By id; nothing for a session without processes. */
  async findFigures(ids: string[]): Promise<Map<string, SessionFigures>> {
    const rows = await this.prisma.$queryRaw<({ id: string } & SessionFigures)[]>`
      SELECT session_id AS id, count(*)::int AS "processCount", bool_or(status IN ('pending', 'running')) AS "isBusy",
        sum(${Prisma.raw(COUNTED_COST)}) AS "costUsd",
        CASE WHEN count(usage) > 0 THEN json_build_object(
          'inputTokens', sum(${tokens('inputTokens')}),
          'outputTokens', sum(${tokens('outputTokens')}),
          'cacheReadInputTokens', sum(${tokens('cacheReadInputTokens')}),
          'cacheCreationInputTokens', sum(${tokens('cacheCreationInputTokens')})) END AS usage
      FROM processes WHERE session_id = ANY(${ids}::uuid[]) GROUP BY session_id`;
    return new Map(rows.map(({ id, ...figures }) => [id, figures]));
  }

  isRunning(id: string): Promise<boolean> {
    return hasLive(this.prisma, id, ['running']);
  }

  /** Whether a process of it has ever begun. */
  async hasRun(id: string): Promise<boolean> {
    const begun = { sessionId: id, startedAt: { not: null } };
    return (await this.prisma.process.count({ where: begun, take: 1 })) > 0;
  }

  /** @returns whether there is such a session */
  async rename(id: string, title: string | null): Promise<boolean> {
    const { count } = await this.prisma.session.updateMany({ where: { id, ...KEPT }, data: { title } });
    return count === 1;
  }

  /**
   * Deletes all that is a session but the row, which its processes refer to. Whoever begins a process in it holds the row until
   * that is there, and finds it deleted otherwise.
   */
  remove(id: string): Promise<'removed' | 'missing' | 'busy'> {
    return this.prisma.$transaction(async (transaction) => {
      const [kept] = await transaction.$queryRaw<unknown[]>`
        SELECT 1 FROM sessions WHERE id = ${id}::uuid AND deleted_at IS NULL FOR UPDATE`;
      if (!kept) return 'missing';
      if (await hasLive(transaction, id, ['pending', 'running'])) return 'busy';
      await transaction.sessionEntry.deleteMany({ where: { sessionId: id } });
      await transaction.$executeRaw`
        UPDATE sessions SET deleted_at = now(), title = NULL, cli_session_id = NULL, workspace_key = NULL
        WHERE id = ${id}::uuid`;
      return 'removed';
    });
  }

  fork(fork: NewFork): Promise<Forked> {
    return this.prisma.$transaction((transaction) => this.forkWithin(transaction, fork));
  }

  /** A copy of a session as it was after so many turns: what was said in later ones is left out. */
  async forkWithin(transaction: Prisma.TransactionClient, fork: NewFork): Promise<Forked> {
    const { id, userId, originId, title } = fork;
    const held = await transaction.$queryRaw<unknown[]>(heldSession({ id: originId, userId }));
    if (held.length === 0) return { kind: 'missing' };
    if (await hasLive(transaction, originId, ['running'])) return { kind: 'busy' };
    const origin = await transaction.session.findUniqueOrThrow({ where: { id: originId } });
    const head = fork.head ?? origin.head;
    if (head > origin.head) return { kind: 'too_short', head: origin.head };
    const { cliSessionId, lastOrdinal, transcriptGaps } = origin;
    await createSession(transaction, {
      ...{ id, userId, title, head, forkedFromId: originId },
      ...{ cliSessionId, lastOrdinal, transcriptGaps },
    });
    await transaction.$executeRaw`
      ${Prisma.raw(PATIENT)} INSERT INTO session_entries (session_id, ordinal, subpath, uuid, process_id, head, spoken, entry)
      SELECT ${id}::uuid, ordinal, subpath, uuid, process_id, head, spoken, entry
      FROM session_entries WHERE session_id = ${originId}::uuid AND head < ${head}`;
    return { kind: 'forked' };
  }
}

/** A part of a statement: makes a session under a condition, and answers its id. */
export const madeSession = (
  { id, userId }: { id: string; userId: string },
  condition: Prisma.Sql,
) => Prisma.sql`
  INSERT INTO sessions (id, user_id, workspace_key)
  SELECT ${id}::uuid, ${userId}::uuid, ${id} WHERE ${condition} RETURNING id`;

/**
 * A part of a statement: answers the id of a session if there is one, and sees to it that it is not deleted before the
 * transaction has ended.
 */
export const heldSession = ({ id, userId }: { id: string; userId: string }) => Prisma.sql`
  SELECT id FROM sessions
  WHERE id = ${id}::uuid AND user_id = ${userId}::uuid AND deleted_at IS NULL FOR KEY SHARE`;

// The names are constants of this file, never a caller's.
const tokens = (name: keyof Usage) => Prisma.raw(countedTokens(name));

async function createSession(
  client: Prisma.TransactionClient,
  session: Omit<Prisma.SessionUncheckedCreateInput, 'workspaceKey'>,
): Promise<void> {
  await client.session.create({ data: { ...session, workspaceKey: session.id } });
}

async function hasLive(
  transaction: Prisma.TransactionClient,
  sessionId: string,
  status: ('pending' | 'running')[],
): Promise<boolean> {
  return (await transaction.process.count({ where: { sessionId, status: { in: status } }, take: 1 })) > 0;
}
