import { Injectable } from '@nestjs/common';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import { afterCursor, type KeysetPosition, NEWEST_FIRST } from '../platform/http/keyset-cursor.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import { insertEvents } from './process-log.repository.js';
import { type SummaryRow, toProcess } from './process-view.js';
import type { ProcessStatus } from './processes.schemas.js';

export interface NewProcess {
  id: string;
  userId: string;
  sessionId: string;
  prompt: string;
  promptPreview: string;
  request: Prisma.InputJsonObject;
  metadata: Prisma.InputJsonObject;
  priority: number;
  maxAttempts: number;
  retryOn: string[];
  /** Null: it waits for its start as long as it takes. */
  queueTimeoutMs: number | null;
  demo: boolean;
}

export interface ProcessFilter {
  /** Null: everybody's. */
  userId: string | null;
  status?: ProcessStatus[] | undefined;
  createdAfter?: Date | undefined;
  createdBefore?: Date | undefined;
  metadata?: Record<string, string> | undefined;
}

/** Owns `processes`, and `sessions` as far as a run makes one. Its log is `ProcessLogRepository`'s. */
@Injectable()
export class ProcessesRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Writes the process, its session and the first entries of its log in one transaction. */
  async create({
    queueTimeoutMs,
    ...process
  }: NewProcess): Promise<{ row: ProcessRow; queuePosition: number }> {
    return this.prisma.$transaction(async (transaction) => {
      await transaction.session.create({
        data: { id: process.sessionId, userId: process.userId, workspaceKey: process.sessionId },
      });
      const { fairRank, now } = await nextRank(transaction, process.userId);
      const queueDeadline = queueTimeoutMs === null ? null : new Date(now.getTime() + queueTimeoutMs);
      const row = await transaction.process.create({
        data: { ...process, fairRank, queueDeadline, lastSeq: 2 },
      });
      const queuePosition = await countUpTo(transaction, row.fairRank);
      const events: NewProcessEvent[] = [
        { type: 'created', process: toProcess({ ...row, lastSeq: 1 }, queuePosition) },
        { type: 'queued', position: queuePosition },
      ];
      await insertEvents(transaction, { processId: row.id, lastSeq: 0 }, events);
      return { row, queuePosition };
    });
  }

  /** @param userId whose it must be; null for anybody's */
  findOwned(userId: string | null, id: string): Promise<ProcessRow | null> {
    return this.prisma.process.findFirst({ where: { id, ...(userId === null ? {} : { userId }) } });
  }

  list(filter: ProcessFilter, position: KeysetPosition | null, limit: number): Promise<SummaryRow[]> {
    const { userId, status, createdAfter, createdBefore, metadata } = filter;
    return this.prisma.process.findMany({
      omit: { prompt: true, result: true },
      where: {
        AND: [
          userId === null ? {} : { userId },
          status === undefined ? {} : { status: { in: status } },
          createdAfter === undefined ? {} : { createdAt: { gt: createdAfter } },
          createdBefore === undefined ? {} : { createdAt: { lt: createdBefore } },
          ...Object.entries(metadata ?? {}).map(([key, value]) => ({
            metadata: { path: [key], equals: value },
          })),
          afterCursor(position),
        ],
      },
      orderBy: [...NEWEST_FIRST],
      take: limit,
    });
  }

  /** The places in the queue of those that wait, from 1. */
  async queuePositions(ids: string[]): Promise<Map<string, number>> {
    if (ids.length === 0) return new Map();
    const rows = await this.prisma.$queryRaw<{ id: string; position: number }[]>`
      SELECT mine.id, (SELECT count(*)::int FROM processes other WHERE other.status = 'pending' AND other.fair_rank <= mine.fair_rank) AS position
      FROM processes mine WHERE mine.id = ANY(${ids}::uuid[]) AND mine.status = 'pending'`;
    return new Map(rows.map(({ id, position }) => [id, position]));
  }
}

async function countUpTo(transaction: Prisma.TransactionClient, fairRank: bigint): Promise<number> {
  return transaction.process.count({ where: { status: 'pending', fairRank: { lte: fairRank } } });
}

/**
 * Start-time fair queueing: a user's next place is one after their last, or after what the queue has come to by now, whichever
 * is later. Who has hundreds waiting is so far behind that nobody else waits for all of them.
 */
async function nextRank(
  transaction: Prisma.TransactionClient,
  userId: string,
): Promise<{ fairRank: bigint; now: Date }> {
  const [share] = await transaction.$queryRaw<{ fairRank: bigint; now: Date }[]>`
    INSERT INTO queue_shares (user_id, last_rank)
    SELECT ${userId}::uuid, virtual_time + 1 FROM queue_clock
    ON CONFLICT (user_id) DO UPDATE SET last_rank = greatest(queue_shares.last_rank + 1, excluded.last_rank)
    RETURNING last_rank AS "fairRank", now() AS now`;
  if (!share) throw new Error('The table queue_clock has lost its row.');
  return share;
}
