import { Injectable } from '@nestjs/common';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import { toProcess } from './process-view.js';

/** What one statement deletes, so that nobody waits long for it. */
const BATCH_EVENTS = 5_000;
const BATCH_KEYS = 1_000;

/**
 * Lets go of what is old, or was asked to be gone. A log loses a prefix, never a part in between: first its readers are told
 * where it begins now, then the rows go, batch by batch; whoever dies over it leaves the rest to the next sweep.
 */
@Injectable()
export class ProcessRetentionRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Ended processes whose logs are older than that, and those whose content was deleted and that still have rows. */
  async findUnpruned(days: number, limit: number): Promise<string[]> {
    const tooOld =
      days === 0
        ? Prisma.empty
        : Prisma.sql`UNION ALL (SELECT id FROM processes WHERE finished_at IS NOT NULL AND events_pruned_at IS NULL
            AND finished_at < ${daysAgo(days)} ORDER BY finished_at LIMIT ${limit})`;
    return idsOf(
      await this.prisma.$queryRaw`
        (SELECT id FROM processes WHERE content_deleted_at IS NOT NULL AND events_pruned_at IS NULL LIMIT ${limit}) ${tooOld}`,
    );
  }

  /** Leaves the terminal event alone of the log of a process that has ended. */
  async prune(id: string): Promise<void> {
    await this.prisma.$executeRaw`
      UPDATE processes SET first_seq = last_seq
      WHERE id = ${id}::uuid AND finished_at IS NOT NULL AND first_seq < last_seq`;
    while ((await this.deleteEvents(id)) > 0);
    await this.prisma.$executeRaw`
      UPDATE processes SET events_pruned_at = now()
      WHERE id = ${id}::uuid AND finished_at IS NOT NULL AND events_pruned_at IS NULL`;
  }

  async findExpired(days: number, limit: number): Promise<string[]> {
    return idsOf(
      await this.prisma.$queryRaw`
        SELECT id FROM processes WHERE finished_at IS NOT NULL AND finished_at < ${daysAgo(days)}
        ORDER BY finished_at LIMIT ${limit}`,
    );
  }

  /** Deletes processes that have ended, and the sessions that were theirs alone. */
  async deleteProcesses(ids: string[]): Promise<void> {
    // Row by row by the cascade, it would be one long statement.
    for (const id of ids) await this.prune(id);
    await this.prisma.$transaction(async (transaction) => {
      const sessionIds = idsOf(
        await transaction.$queryRaw`
          DELETE FROM processes WHERE id = ANY(${ids}::uuid[]) AND finished_at IS NOT NULL RETURNING session_id AS id`,
      );
      await deleteUnusedSessions(transaction, sessionIds);
    });
  }

  /** Sessions that nothing was ever run in, or of whose runs nothing is left. @returns how many there were, `limit` at most */
  async deleteEmptySessions(days: number, limit: number): Promise<number> {
    return this.prisma.$transaction(async (transaction) => {
      const sessionIds = idsOf(
        await transaction.$queryRaw`
          SELECT id FROM sessions WHERE created_at < ${daysAgo(days)}
            AND NOT EXISTS (SELECT 1 FROM processes WHERE processes.session_id = sessions.id) LIMIT ${limit}`,
      );
      await deleteUnusedSessions(transaction, sessionIds);
      return sessionIds.length;
    });
  }

  async deleteExpiredKeys(): Promise<void> {
    const deleteBatch = () => this.prisma.$executeRaw`
      DELETE FROM idempotency_keys WHERE (user_id, key) IN (
        SELECT user_id, key FROM idempotency_keys WHERE expires_at <= now() LIMIT ${BATCH_KEYS} FOR UPDATE SKIP LOCKED)`;
    while ((await deleteBatch()) === BATCH_KEYS);
  }

  /**
   * Takes out of a process what its caller wrote and what came of it; ids, times, status, error, usage and cost stay.
   * @returns what is left; null when it has not ended
   */
  async deleteContent(id: string): Promise<ProcessRow | null> {
    const left = await this.prisma.$transaction(async (transaction) => {
      const [locked] = await transaction.$queryRaw<{ now: Date; lastSeq: number; isDeleted: boolean }[]>`
        SELECT clock_timestamp() AS now, last_seq AS "lastSeq", content_deleted_at IS NOT NULL AS "isDeleted"
        FROM processes WHERE id = ${id}::uuid AND finished_at IS NOT NULL FOR UPDATE`;
      if (!locked) return null;
      if (locked.isDeleted) return transaction.process.findUnique({ where: { id } });
      await transaction.processCommand.deleteMany({ where: { processId: id } });
      const row = await transaction.process.update({
        where: { id },
        data: {
          prompt: '',
          promptPreview: '',
          result: null,
          structuredResult: Prisma.DbNull,
          request: {},
          metadata: {},
          permissionDenials: [],
          filesChanged: Prisma.DbNull,
          contentDeletedAt: locked.now,
          firstSeq: locked.lastSeq,
          eventsPrunedAt: null,
        },
      });
      await rewriteEnding(transaction, row);
      await forgetConversation(transaction, row);
      return row;
    });
    if (left) await this.prune(id);
    return left;
  }

  /** Which of these workspaces belong to no session (any more). */
  async findUnusedWorkspaces(keys: string[]): Promise<string[]> {
    const rows = await this.prisma.$queryRaw<{ key: string }[]>`
      SELECT key FROM unnest(${keys}::text[]) key
      WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.workspace_key = key)`;
    return rows.map(({ key }) => key);
  }

  /** Those before the first that is left for readers. The numbers have no gap. */
  private deleteEvents(id: string): Promise<number> {
    return this.prisma.$executeRaw`
      DELETE FROM process_events WHERE process_id = ${id}::uuid
        AND seq < (SELECT first_seq FROM processes WHERE id = ${id}::uuid)
        AND seq < (SELECT min(seq) + ${BATCH_EVENTS} FROM process_events WHERE process_id = ${id}::uuid)`;
  }
}

const daysAgo = (days: number) => Prisma.sql`now() - ${days} * interval '1 day'`;

const idsOf = (rows: unknown) => (rows as { id: string }[]).map(({ id }) => id);

/**
 * The lock comes first and by itself: whoever just adds a process to one of them holds it, and the deletion must see that
 * process. (The foreign key would delete it as well.)
 */
async function deleteUnusedSessions(transaction: Prisma.TransactionClient, ids: string[]): Promise<void> {
  if (ids.length === 0) return;
  // Not those that are used as it is: a claim would wait for them.
  const unused = await transaction.$queryRaw<{ id: string }[]>`
    SELECT id FROM sessions WHERE id = ANY(${ids}::uuid[])
      AND NOT EXISTS (SELECT 1 FROM processes WHERE processes.session_id = sessions.id)
    ORDER BY id FOR UPDATE`;
  await transaction.$executeRaw`
    DELETE FROM sessions WHERE id = ANY(${unused.map(({ id }) => id)}::uuid[])
      AND NOT EXISTS (SELECT 1 FROM processes WHERE processes.session_id = sessions.id)`;
}

/**
 * What was said in the session, once nobody's content is left in it: until then, others go on from there. The lock comes first
 * and by itself: of two that are the last, one must see the other. A CLI that remembers it finds another ordinal.
 */
async function forgetConversation(
  transaction: Prisma.TransactionClient,
  { sessionId }: ProcessRow,
): Promise<void> {
  await transaction.$queryRaw`SELECT 1 FROM sessions WHERE id = ${sessionId}::uuid FOR UPDATE`;
  await transaction.$executeRaw`
    WITH forgotten AS (
      DELETE FROM session_entries WHERE session_id = ${sessionId}::uuid
        AND NOT EXISTS (
          SELECT 1 FROM processes WHERE session_id = ${sessionId}::uuid AND content_deleted_at IS NULL)
      RETURNING 1
    )
    UPDATE sessions SET last_ordinal = last_ordinal + 1
    WHERE id = ${sessionId}::uuid AND EXISTS (SELECT 1 FROM forgotten)`;
}

/** The terminal event says what the row says. */
async function rewriteEnding(transaction: Prisma.TransactionClient, row: ProcessRow): Promise<void> {
  const ending = { type: row.status, process: toProcess(row, null) } as NewProcessEvent;
  const payload = JSON.stringify(ending);
  await transaction.$executeRaw`
    UPDATE process_events SET payload = ${payload}::json, bytes = ${Buffer.byteLength(payload)}
    WHERE process_id = ${row.id}::uuid AND seq = ${row.lastSeq}`;
}
