import { Injectable } from '@nestjs/common';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';
import { toProcess } from './process-view.js';
import type { Process, ProcessError, Usage } from './processes.schemas.js';

/** The right to write to a process's log: whose claim has another fence has lost it. */
export interface Run {
  readonly processId: string;
  readonly fence: number;
}

/** What the events of a batch say about the process itself. */
export interface RunFacts {
  started?: {
    engine: string;
    model: string | null;
    cliVersion: string | null;
    cliSessionId: string | null;
    demo: boolean;
  };
  hasText?: boolean;
}

export interface Appended {
  events: ProcessEvent[];
  cancelRequested: boolean;
}

type EndingStatus = 'completed' | 'failed' | 'cancelled';

export interface Outcome {
  status: EndingStatus;
  result?: string | null;
  error?: ProcessError | null;
  stopReason?: Process['stopReason'];
  usage?: Usage | null;
  costUsd?: number | null;
  numTurns?: number | null;
  model?: string | null;
  permissionDenials?: Process['permissionDenials'];
}

interface EventRow {
  processId: string;
  seq: number;
  payload: NewProcessEvent;
  createdAt: Date;
}

/** Owns `process_events`, and the ending of a process: the last entry of its log. */
@Injectable()
export class ProcessLogRepository {
  constructor(private readonly prisma: PrismaService) {}

  /**
   * Adds to the log of a run: one statement, so all or nothing, that takes the numbers from `last_seq`.
   * @param run with the `lastSeq` that the caller knows: what is sent again after a lost answer is not written again
   * @returns null when the run is no longer the caller's, or its log has come further
   */
  async append(
    { processId, fence, lastSeq }: Run & { lastSeq: number },
    events: NewProcessEvent[],
    facts: RunFacts,
  ): Promise<Appended | null> {
    const { started, hasText = false } = facts;
    const rows = await this.prisma.$queryRaw<{ seq: number; createdAt: Date; cancelRequested: boolean }[]>`
      WITH run AS (
        UPDATE processes SET
          last_seq = last_seq + ${events.length},
          started_at = CASE WHEN ${started !== undefined} THEN coalesce(started_at, now()) ELSE started_at END,
          first_token_at = CASE WHEN ${hasText} THEN coalesce(first_token_at, now()) ELSE first_token_at END,
          engine = coalesce(${started?.engine ?? null}, engine),
          model = coalesce(${started?.model ?? null}, model),
          cli_version = coalesce(${started?.cliVersion ?? null}, cli_version),
          demo = coalesce(${started?.demo ?? null}, demo)
        WHERE id = ${processId}::uuid AND fence = ${fence} AND status = 'running' AND last_seq = ${lastSeq}
        RETURNING id, session_id, last_seq - ${events.length} AS base, cancel_requested_at IS NOT NULL AS "cancelRequested"
      ), conversation AS (
        UPDATE sessions SET cli_session_id = ${started?.cliSessionId ?? null}
        FROM run WHERE sessions.id = run.session_id AND ${typeof started?.cliSessionId === 'string'}
      ), entries AS (
        INSERT INTO process_events (process_id, seq, type, payload)
        SELECT run.id, run.base + entry.place, entry.value->>'type', entry.value
        FROM run, json_array_elements(${JSON.stringify(events)}::json) WITH ORDINALITY AS entry(value, place)
        RETURNING seq, created_at
      )
      SELECT entries.seq, entries.created_at AS "createdAt", run."cancelRequested" FROM entries, run ORDER BY entries.seq`;
    if (rows.length !== events.length) return null;
    return {
      cancelRequested: rows[0]?.cancelRequested ?? false,
      events: events.map((payload, index) =>
        toEvent({ processId, payload, ...(rows[index] as { seq: number; createdAt: Date }) }),
      ),
    };
  }

  /**
   * Ends a run: its last events, its status, its result and the terminal event in one transaction. A cancel that was asked
   * for in time and an ending that came before it have one winner: whoever gets the row first.
   * @returns null when the run is no longer the caller's
   */
  async end(run: Run, events: NewProcessEvent[], outcome: Outcome): Promise<ProcessEvent[] | null> {
    return this.prisma.$transaction(async (transaction) => {
      const { processId, fence } = run;
      const locked = await lock(
        transaction,
        Prisma.sql`id = ${processId}::uuid AND fence = ${fence} AND status = 'running'`,
      );
      return locked && finish(transaction, locked, events, outcome);
    });
  }

  /** Ends a run whose worker is lost; a cancel that was asked for wins. @returns null when it is not that run any more */
  async giveUp({ processId, fence }: Run, outcome: Outcome): Promise<ProcessEvent[] | null> {
    return this.prisma.$transaction(async (transaction) => {
      const locked = await lock(
        transaction,
        Prisma.sql`id = ${processId}::uuid AND fence = ${fence} AND status = 'running'`,
      );
      if (!locked) return null;
      return finish(
        transaction,
        locked,
        [],
        locked.row.cancelRequestedAt ? { status: 'cancelled' } : outcome,
      );
    });
  }

  /** Takes a run that never started back to the queue, to its old place. @returns whether it was such a run */
  async requeue({ processId, fence }: Run): Promise<boolean> {
    const count = await this.prisma.$executeRaw`
      UPDATE processes SET status = 'pending', attempt = attempt + 1, owner = NULL, lease_until = NULL, dispatched_at = NULL
      WHERE id = ${processId}::uuid AND fence = ${fence} AND status = 'running'
        AND started_at IS NULL AND cancel_requested_at IS NULL`;
    return count === 1;
  }

  /** Cancels a process that still waits. @returns null when it no longer does */
  async cancelPending(processId: string): Promise<ProcessEvent[] | null> {
    return this.prisma.$transaction(async (transaction) => {
      const locked = await lock(transaction, Prisma.sql`id = ${processId}::uuid AND status = 'pending'`);
      return locked && finish(transaction, locked, [], { status: 'cancelled' });
    });
  }

  /** The part of a log after a seq, in order. */
  async read(processId: string, after: number, limit: number): Promise<ProcessEvent[]> {
    const rows = await this.prisma.processEvent.findMany({
      where: { processId, seq: { gt: after } },
      orderBy: { seq: 'asc' },
      take: limit,
    });
    return (rows as unknown as EventRow[]).map(toEvent);
  }

  /** How far the logs have come. */
  async lastSeqs(processIds: string[]): Promise<Map<string, number>> {
    const rows = await this.prisma.process.findMany({
      where: { id: { in: processIds } },
      select: { id: true, lastSeq: true },
    });
    return new Map(rows.map(({ id, lastSeq }) => [id, lastSeq]));
  }

  /** What is known of a run after a write whose answer was lost. */
  async findRun({ processId }: Run): Promise<{ fence: number; lastSeq: number; status: string } | null> {
    return this.prisma.process.findUnique({
      where: { id: processId },
      select: { fence: true, lastSeq: true, status: true },
    });
  }
}

interface LockedProcess {
  row: ProcessRow;
  /** By the database's clock. */
  now: Date;
}

async function lock(
  transaction: Prisma.TransactionClient,
  condition: Prisma.Sql,
): Promise<LockedProcess | null> {
  const [locked] = await transaction.$queryRaw<{ id: string; now: Date }[]>`
    SELECT id, now() FROM processes WHERE ${condition} FOR UPDATE`;
  const row = locked && (await transaction.process.findUnique({ where: { id: locked.id } }));
  return row ? { row, now: locked.now } : null;
}

async function finish(
  transaction: Prisma.TransactionClient,
  { row, now }: LockedProcess,
  events: NewProcessEvent[],
  outcome: Outcome,
): Promise<ProcessEvent[]> {
  const finished = await transaction.process.update({
    where: { id: row.id },
    data: {
      status: outcome.status,
      result: outcome.result ?? null,
      error: outcome.error ?? Prisma.DbNull,
      stopReason: outcome.stopReason ?? null,
      usage: outcome.usage ?? Prisma.DbNull,
      costUsd: outcome.costUsd ?? null,
      numTurns: outcome.numTurns ?? null,
      model: outcome.model ?? row.model,
      permissionDenials: (outcome.permissionDenials ?? []) as Prisma.InputJsonArray,
      cancelRequestedAt: row.status === 'pending' ? now : row.cancelRequestedAt,
      owner: null,
      leaseUntil: null,
      lastSeq: row.lastSeq + events.length + 1,
      finishedAt: now,
    },
  });
  if (row.startedAt)
    await transaction.session.update({ where: { id: row.sessionId }, data: { head: { increment: 1 } } });
  const terminal: NewProcessEvent = { type: outcome.status, process: toProcess(finished, null) };
  const written = await transaction.processEvent.createManyAndReturn({
    data: [...events, terminal].map((event, index) => ({
      processId: row.id,
      seq: row.lastSeq + 1 + index,
      type: event.type,
      payload: event as Prisma.InputJsonObject,
    })),
  });
  return (written as unknown as EventRow[]).sort((a, b) => a.seq - b.seq).map(toEvent);
}

const toEvent = ({ processId, seq, createdAt, payload }: EventRow) => ({
  processId,
  seq,
  createdAt: createdAt.toISOString(),
  ...payload,
});
