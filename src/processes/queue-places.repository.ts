import { Injectable } from '@nestjs/common';
import { Prisma } from '../generated/prisma/client.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { WAITS } from './fair-order.repository.js';

/** What ended lately, and how much of it tells how long the next will take. */
const LATELY = '1 day';
const SAMPLE = 100;

/** Where a process stands that waits. */
export interface QueuePlace {
  /** From 1. */
  position: number;
  /** It may not run before. */
  retryAt: Date | null;
}

export interface QueueTraffic {
  running: number;
  /** Of what ended lately; null where nothing did. */
  meanRunMs: number | null;
}

export interface QueueDepth {
  /** All that wait, the parked included. */
  pending: number;
  /** Of those, what waits for its next attempt. */
  parked: number;
  running: number;
  oldestAgeMs: number | null;
}

/** Those that may be claimed in their order; behind them, by their time, those that wait for their next attempt. */
const PLACES = Prisma.sql`
  SELECT id, user_id, parked_until, row_number() OVER (ORDER BY parked_until NULLS FIRST, fair_rank, id)::int AS position
  FROM (
    SELECT id, user_id, fair_rank, CASE WHEN retry_at > now() THEN retry_at END AS parked_until
    FROM processes WHERE status = 'pending'
  ) pending`;

/** Reads the queue. */
@Injectable()
export class QueuePlacesRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** The places of those of these that wait: one look at the queue, however many are asked for. */
  async find(ids: string[]): Promise<Map<string, QueuePlace>> {
    if (ids.length === 0) return new Map();
    const rows = await this.prisma.$queryRaw<(QueuePlace & { id: string })[]>`
      SELECT id, position, parked_until AS "retryAt" FROM (${PLACES}) place WHERE id = ANY(${ids}::uuid[])`;
    return new Map(rows.map(({ id, ...place }) => [id, place]));
  }

  /** Who is the next to leave the queue. @param userId null for anybody's */
  async findFirst(userId: string | null): Promise<QueuePlace | null> {
    const [first] = await this.prisma.$queryRaw<QueuePlace[]>`
      SELECT position, parked_until AS "retryAt" FROM (${PLACES}) place
      WHERE ${userId === null ? Prisma.sql`true` : Prisma.sql`user_id = ${userId}::uuid`} ORDER BY position LIMIT 1`;
    return first ?? null;
  }

  async traffic(): Promise<QueueTraffic> {
    const [traffic] = await this.prisma.$queryRaw<[QueueTraffic]>`
      SELECT (SELECT count(*)::int FROM processes WHERE status = 'running') AS running,
        (SELECT avg(run_ms)::float8 FROM (
          SELECT extract(epoch FROM finished_at - started_at) * 1000 AS run_ms FROM processes
          WHERE finished_at > now() - ${LATELY}::interval AND started_at IS NOT NULL
          ORDER BY finished_at DESC LIMIT ${SAMPLE}
        ) lately) AS "meanRunMs"`;
    return traffic;
  }

  async depth(): Promise<QueueDepth> {
    const [depth] = await this.prisma.$queryRaw<[QueueDepth]>`
      SELECT count(*) FILTER (WHERE status = 'pending')::int AS pending,
        count(*) FILTER (WHERE status = 'pending' AND NOT (${WAITS}))::int AS parked,
        count(*) FILTER (WHERE status = 'running')::int AS running,
        round(extract(epoch FROM now() - min(created_at) FILTER (WHERE status = 'pending')) * 1000)::float8 AS "oldestAgeMs"
      FROM processes WHERE status = 'pending' OR status = 'running'`;
    return depth;
  }
}

/** In a transaction that has just written it: how many are claimed before it, and it. */
export async function countUpTo(transaction: Prisma.TransactionClient, id: string): Promise<number> {
  const [place] = await transaction.$queryRaw<[{ position: number }]>`
    SELECT count(*)::int AS position FROM processes mine JOIN processes
      ON (processes.fair_rank, processes.id) <= (mine.fair_rank, mine.id)
    WHERE mine.id = ${id}::uuid AND processes.status = 'pending'
      AND (processes.retry_at IS NULL OR processes.retry_at <= now())`;
  return place.position;
}
