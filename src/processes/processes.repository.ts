import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import { afterCursor, type KeysetPosition, NEWEST_FIRST } from '../platform/http/keyset-cursor.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { NewProcessEvent } from './process-events.schemas.js';
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

const LOCKED_RETRY_MS = 5;
const MAX_CLAIM_TRIES = 200;

/** What may run: it waits, and nothing else of its session runs. */
const ELIGIBLE = Prisma.sql`candidate.status = 'pending' AND NOT EXISTS (
  SELECT 1 FROM processes other WHERE other.session_id = candidate.session_id AND other.status = 'running')`;

/** Owns `processes`, and `sessions` as far as a run makes one. Its log is `ProcessLogRepository`'s. */
@Injectable()
export class ProcessesRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Writes the process, its session and the first entries of its log in one transaction. */
  async create(process: NewProcess): Promise<{ row: ProcessRow; queuePosition: number }> {
    return this.prisma.$transaction(async (transaction) => {
      await transaction.session.create({
        data: { id: process.sessionId, userId: process.userId, workspaceKey: process.sessionId },
      });
      const row = await transaction.process.create({ data: { ...process, lastSeq: 2 } });
      const queuePosition = await countUpTo(transaction, row.fairRank);
      const events: NewProcessEvent[] = [
        { type: 'created', process: toProcess({ ...row, lastSeq: 1 }, queuePosition) },
        { type: 'queued', position: queuePosition },
      ];
      await transaction.processEvent.createMany({
        data: events.map((event, index) => ({
          processId: row.id,
          seq: index + 1,
          type: event.type,
          payload: event as Prisma.InputJsonObject,
        })),
      });
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

  /**
   * Gives the oldest process that may run to a worker, if there is one. `SKIP LOCKED` also skips a row that is locked for
   * something else than a claim (its dispatch is being noted, say); to leave then would lose the wake-up that led here.
   */
  async claim(owner: string, leaseMs: number): Promise<ProcessRow | null> {
    for (let tries = 0; tries < MAX_CLAIM_TRIES; tries += 1) {
      const id = await this.claimUnlocked(owner, leaseMs);
      if (id !== null) return this.prisma.process.findUnique({ where: { id } });
      if (!(await this.hasEligible())) return null;
      await sleep(LOCKED_RETRY_MS);
    }
    return null;
  }

  /** Prolongs the leases of a worker. What is not in the answer is no longer its own. */
  renewLeases(
    owner: string,
    ids: string[],
    leaseMs: number,
  ): Promise<{ id: string; fence: number; cancelRequested: boolean }[]> {
    return this.prisma.$queryRaw`
      UPDATE processes SET lease_until = ${leaseEnd(leaseMs)}
      WHERE id = ANY(${ids}::uuid[]) AND owner = ${owner} AND status = 'running'
      RETURNING id, fence, cancel_requested_at IS NOT NULL AS "cancelRequested"`;
  }

  /** Running processes whose worker has not been heard of for the length of a lease. */
  findExpired(limit: number): Promise<{ id: string; fence: number }[]> {
    return this.prisma.$queryRaw`
      SELECT id, fence FROM processes WHERE status = 'running' AND lease_until < now() ORDER BY lease_until LIMIT ${limit}`;
  }

  /** Asks the worker that runs it to cancel. @returns whether it runs */
  async requestCancel(id: string): Promise<boolean> {
    const count = await this.prisma.$executeRaw`
      UPDATE processes SET cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE id = ${id}::uuid AND status = 'running'`;
    return count === 1;
  }

  async markDispatched(id: string): Promise<void> {
    await this.prisma.$executeRaw`UPDATE processes SET dispatched_at = now() WHERE id = ${id}::uuid`;
  }

  /** Those that wait with no wake-up on its way, as far as one can tell: a crash or a flushed Redis lost it. */
  findUndispatched(
    graceMs: number,
    redispatchMs: number,
    limit: number,
  ): Promise<{ id: string; attempt: number }[]> {
    return this.prisma.$queryRaw`
      SELECT id, attempt FROM processes
      WHERE status = 'pending'
        AND coalesce(dispatched_at + ${redispatchMs} * interval '1 ms', created_at + ${graceMs} * interval '1 ms') < now()
      ORDER BY fair_rank LIMIT ${limit}`;
  }

  private async claimUnlocked(owner: string, leaseMs: number): Promise<string | null> {
    const claimed = await this.prisma.$queryRaw<{ id: string }[]>`
      UPDATE processes SET status = 'running', owner = ${owner}, fence = fence + 1, lease_until = ${leaseEnd(leaseMs)}
      WHERE id = (
        SELECT candidate.id FROM processes candidate WHERE ${ELIGIBLE}
        ORDER BY candidate.fair_rank LIMIT 1 FOR UPDATE SKIP LOCKED
      ) RETURNING id`;
    return claimed[0]?.id ?? null;
  }

  private async hasEligible(): Promise<boolean> {
    const rows = await this.prisma.$queryRaw<unknown[]>`
      SELECT 1 FROM processes candidate WHERE ${ELIGIBLE} LIMIT 1`;
    return rows.length > 0;
  }
}

/** Reckoned by the database's clock, which all servers share. */
const leaseEnd = (leaseMs: number) => Prisma.sql`now() + ${leaseMs} * interval '1 ms'`;

async function countUpTo(transaction: Prisma.TransactionClient, fairRank: bigint): Promise<number> {
  return transaction.process.count({ where: { status: 'pending', fairRank: { lte: fairRank } } });
}
