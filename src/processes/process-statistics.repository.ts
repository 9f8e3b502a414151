import { Injectable } from '@nestjs/common';
import { Prisma } from '../generated/prisma/client.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';

interface Percentiles {
  p50: number | null;
  p95: number | null;
  p99: number | null;
}

export interface ProcessStatistics {
  counts: { pending: number; running: number; completed: number; failed: number; cancelled: number };
  queue: { depth: number; oldestAgeMs: number | null };
  queueWaitMs: Percentiles;
  timeToFirstTokenMs: Percentiles;
  durationMs: Percentiles;
  usage: {
    inputTokens: number;
    outputTokens: number;
    cacheReadInputTokens: number;
    cacheCreationInputTokens: number;
  };
  costUsd: number;
}

interface StatisticsRow {
  pending: number;
  running: number;
  completed: number;
  failed: number;
  cancelled: number;
  wait: (number | null)[] | null;
  firstToken: (number | null)[] | null;
  duration: (number | null)[] | null;
  inputTokens: number;
  outputTokens: number;
  cacheReadInputTokens: number;
  cacheCreationInputTokens: number;
  costUsd: number;
}

/** Reads figures off `processes`. Demo runs do not count. */
@Injectable()
export class ProcessStatisticsRepository {
  constructor(private readonly prisma: PrismaService) {}

  countPending(): Promise<number> {
    return this.prisma.process.count({ where: { status: 'pending' } });
  }

  /** @param userId null for everybody's */
  async since(userId: string | null, windowMs: number): Promise<ProcessStatistics> {
    const mine = userId === null ? Prisma.sql`true` : Prisma.sql`user_id = ${userId}::uuid`;
    const [rows, queue] = await Promise.all([
      this.prisma.$queryRaw<StatisticsRow[]>`
        SELECT
          ${count('pending')}, ${count('running')}, ${count('completed')}, ${count('failed')}, ${count('cancelled')},
          ${percentiles('started_at - created_at')} AS wait,
          ${percentiles('first_token_at - created_at')} AS "firstToken",
          ${percentiles('finished_at - started_at')} AS duration,
          ${tokens('inputTokens')}, ${tokens('outputTokens')},
          ${tokens('cacheReadInputTokens')}, ${tokens('cacheCreationInputTokens')},
          coalesce(least(sum(cost_usd::numeric), 1e15), 0)::float8 AS "costUsd"
        FROM processes WHERE ${mine} AND NOT demo AND created_at > now() - ${windowMs} * interval '1 ms'`,
      this.prisma.$queryRaw<{ depth: number; oldestAgeMs: number | null }[]>`
        SELECT count(*)::int AS depth, ${ageMs('min(created_at)')} AS "oldestAgeMs"
        FROM processes WHERE ${mine} AND NOT demo AND status = 'pending'`,
    ]);
    return toStatistics(onlyRow(rows), queue[0] ?? { depth: 0, oldestAgeMs: null });
  }
}

// The names below are constants of this file, never a caller's.
const count = (status: string) =>
  Prisma.raw(`count(*) FILTER (WHERE status = '${status}')::int AS ${status}`);
/** What a row holds was once taken from a CLI as it was: it must not break a sum. */
const tokens = (name: string) =>
  Prisma.raw(
    `coalesce(round(least(sum((usage->>'${name}')::numeric), ${Number.MAX_SAFE_INTEGER})), 0)::float8 AS "${name}"`,
  );
const ageMs = (moment: string) => Prisma.raw(`(extract(epoch FROM now() - ${moment}) * 1000)::float8`);
const percentiles = (interval: string) =>
  Prisma.raw(
    `percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY (extract(epoch FROM ${interval}) * 1000)::float8)`,
  );

function toStatistics(row: StatisticsRow, queue: ProcessStatistics['queue']): ProcessStatistics {
  const { pending, running, completed, failed, cancelled, costUsd } = row;
  const { inputTokens, outputTokens, cacheReadInputTokens, cacheCreationInputTokens } = row;
  return {
    counts: { pending, running, completed, failed, cancelled },
    queue: { depth: queue.depth, oldestAgeMs: rounded(queue.oldestAgeMs) },
    queueWaitMs: toPercentiles(row.wait),
    timeToFirstTokenMs: toPercentiles(row.firstToken),
    durationMs: toPercentiles(row.duration),
    usage: { inputTokens, outputTokens, cacheReadInputTokens, cacheCreationInputTokens },
    costUsd,
  };
}

function onlyRow<Row>([row]: Row[]): Row {
  if (row === undefined) throw new Error('An aggregate without a row.');
  return row;
}

const rounded = (value: number | null | undefined) => (typeof value === 'number' ? Math.round(value) : null);

function toPercentiles(values: (number | null)[] | null): Percentiles {
  const [p50, p95, p99] = values ?? [];
  return { p50: rounded(p50), p95: rounded(p95), p99: rounded(p99) };
}
