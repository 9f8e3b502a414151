import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import { isUniqueViolation } from '../platform/prisma/database-failure.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { Run } from './process-log.repository.js';
import { leaseEnd } from './process-leases.repository.js';

const LOCKED_RETRY_MS = 5;
const MAX_CLAIM_TRIES = 200;

/** Nothing of its session runs, or was there before it. */
export const IS_FIRST_OF_SESSION = Prisma.sql`NOT EXISTS (
    SELECT 1 FROM processes other
    WHERE other.session_id = candidate.session_id AND other.status IN ('pending', 'running')
      AND (other.status = 'running' OR (other.created_at, other.id) < (candidate.created_at, candidate.id)))`;

/** What may run: it waits, its time has come and is not over, and its session waits for it. */
const ELIGIBLE = Prisma.sql`candidate.status = 'pending'
  AND (candidate.retry_at IS NULL OR candidate.retry_at <= now())
  AND (candidate.queue_deadline IS NULL OR candidate.queue_deadline > now() OR candidate.started_at IS NOT NULL)
  AND ${IS_FIRST_OF_SESSION}`;

/** What its worker needs to know of it, and the mark of its session's transcript, to which nobody else adds from then on. */
export type ClaimedProcess = { transcriptMark: number } & Pick<
  ProcessRow,
  | 'id'
  | 'userId'
  | 'sessionId'
  | 'status'
  | 'owner'
  | 'fence'
  | 'lastSeq'
  | 'attempt'
  | 'retryOn'
  | 'retryAt'
  | 'prompt'
  | 'request'
  | 'costUsd'
>;

/** Which worker gets which process, and which processes have no worker any more. */
@Injectable()
export class ProcessClaimsRepository {
  constructor(private readonly prisma: PrismaService) {}

  /**
   * Gives the process whose turn it is to a worker, if there is one. `SKIP LOCKED` also skips a row that is locked for
   * something else than a claim (a cancel, say, that fails after all); to leave then would lose the wake-up that led here.
   */
  async claim(owner: string, leaseMs: number): Promise<ClaimedProcess | null> {
    for (let tries = 0; tries < MAX_CLAIM_TRIES; tries += 1) {
      const claimed = await this.claimUnlocked(owner, leaseMs);
      if (claimed) return claimed;
      if ((await this.findEligible(1)).length === 0) return null;
      await sleep(LOCKED_RETRY_MS);
    }
    return null;
  }

  /** Running processes whose worker has not been heard of for the length of a lease. */
  async findExpired(limit: number): Promise<Run[]> {
    return this.prisma.$queryRaw`
      SELECT id AS "processId", fence FROM processes
      WHERE status = 'running' AND lease_until < now() ORDER BY lease_until LIMIT ${limit}`;
  }

  /** The running processes that a worker has claimed, whether it has heard of that or not. */
  findOwned(owner: string): Promise<Run[]> {
    return this.prisma.$queryRaw`
      SELECT id AS "processId", fence FROM processes WHERE status = 'running' AND owner = ${owner}`;
  }

  /** Processes that have never started and will not any more. */
  async findOverdue(limit: number): Promise<string[]> {
    const rows = await this.prisma.$queryRaw<{ id: string }[]>`
      SELECT id FROM processes
      WHERE status = 'pending' AND queue_deadline IS NOT NULL AND queue_deadline <= now() AND started_at IS NULL
      ORDER BY queue_deadline LIMIT ${limit}`;
    return rows.map(({ id }) => id);
  }

  /** Those that may run now, the next first. */
  findEligible(limit: number): Promise<{ id: string }[]> {
    return this.prisma.$queryRaw`
      SELECT id FROM processes candidate WHERE ${ELIGIBLE}
      ORDER BY candidate.fair_rank, candidate.id LIMIT ${limit}`;
  }

  // Two that claim a process of one session each, at the same moment, find each other by the unique index. The lock has the
  // session read as it is once the process is locked: what a run before has added since the statement began is in its mark.
  private async claimUnlocked(owner: string, leaseMs: number): Promise<ClaimedProcess | null> {
    try {
      const claimed = await this.prisma.direct.$queryRaw<ClaimedProcess[]>`
        WITH next AS MATERIALIZED (
          SELECT candidate.id, candidate.session_id, candidate.fair_rank FROM processes candidate WHERE ${ELIGIBLE}
          ORDER BY candidate.fair_rank, candidate.id LIMIT 1 FOR UPDATE SKIP LOCKED
        ), session AS MATERIALIZED (
          SELECT last_ordinal FROM sessions JOIN next ON sessions.id = next.session_id FOR SHARE OF sessions
        ), clock AS (
          UPDATE queue_clock SET virtual_time = next.fair_rank FROM next WHERE next.fair_rank > queue_clock.virtual_time
        )
        UPDATE processes SET status = 'running', owner = ${owner}, fence = fence + 1, has_started = false, inbox_closed = false,
          retry_at = NULL, lease_until = ${leaseEnd(leaseMs)}
        FROM next, session WHERE processes.id = next.id
        RETURNING processes.id, user_id AS "userId", processes.session_id AS "sessionId", status, owner, fence,
          last_seq AS "lastSeq", attempt, retry_on AS "retryOn", retry_at AS "retryAt", prompt, request,
          cost_usd AS "costUsd", session.last_ordinal AS "transcriptMark"`;
      return claimed[0] ?? null;
    } catch (error) {
      if (isUniqueViolation(error)) return null;
      throw error;
    }
  }
}
