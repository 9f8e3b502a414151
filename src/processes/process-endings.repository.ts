import { Injectable } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import { costOfAll, modelOf } from '../../libs/claude-engine/index.js';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import type { StatementClient } from '../platform/prisma/direct-statements.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { decisionIn, toResolved, WITHDRAWN } from './permission-decision.js';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';
import { findOpenQuestions } from './process-inbox.repository.js';
import { addedEvents, placeEvents, type Run } from './process-log.repository.js';
import { addCost, addUsage, type Outcome } from './process-outcome.js';
import { ROW } from './process-row.repository.js';
import { toProcess } from './process-view.js';
import type { Usage } from './processes.schemas.js';
import type { RunHistory, Verdict } from './run-verdict.js';

/** What was written when a run was over. */
export interface Concluded {
  events: ProcessEvent[];
  /** What waits for a wake-up now, if anything: the next attempt, or the next of the session. */
  next: { id: string; afterMs: number } | null;
}

/** What became of a wish to cancel. */
export type Cancelled =
  { kind: 'ended'; events: ProcessEvent[] } | { kind: 'requested' } | { kind: 'too_late' };

/**
 * The edges of the status machine that end a process, or give it back to the queue. Each writes the row as it was read, or, if it
 * is another by then, reads it again under its lock: of two that come together one wins and the other finds it changed.
 */
@Injectable()
export class ProcessEndingsRepository {
  constructor(private readonly prisma: PrismaService) {}

  /**
   * Carries out what is to become of a run that is over: its last events, its status, its figures and the terminal event are
   * one append. `judge` sees the row as it is then, a cancel that came in between included.
   * @returns null when the run is no longer the caller's
   */
  async conclude(
    { processId, fence }: Run,
    events: NewProcessEvent[],
    judge: (run: RunHistory) => Verdict,
  ): Promise<Concluded | null> {
    const condition = Prisma.sql`id = ${processId}::uuid AND fence = ${fence} AND status = 'running'`;
    const carryOutAs = (client: StatementClient, found: VersionedProcess) =>
      carryOut(client, found, events, judge(historyOf(found.row)));
    const found = await find(this.prisma.direct, condition);
    if (!found) return null;
    // What an ending must see has to write the row anew, as a cancel does. An answer to a question for permission does not: it is
    // taken in under the lock of the row.
    if (!asksPermission(found.row)) {
      const concluded = await unlessChanged(carryOutAs(this.prisma.direct, found));
      if (concluded) return concluded;
    }
    return this.prisma.$transaction(async (transaction) => {
      const locked = await lock(transaction, condition);
      return locked && carryOutAs(transaction, locked);
    });
  }

  /**
   * Carries out what is to become of a run whose lease has expired, as it still must have in this very statement: its worker may
   * have been slow, and not lost. Its fence is counted up, so that the worker cannot take what is written here for its own.
   * @returns null when the run has been renewed meanwhile, or is over
   */
  async takeOver({ processId, fence }: Run, judge: (run: RunHistory) => Verdict): Promise<Concluded | null> {
    return this.prisma.$transaction(async (transaction) => {
      const [taken] = await transaction.$queryRaw<VersionedRow[]>`
        UPDATE processes SET fence = fence + 1
        WHERE id = ${processId}::uuid AND fence = ${fence} AND status = 'running' AND lease_until < now()
        RETURNING ${VERSIONED_ROW}`;
      const locked = taken ? toVersioned(taken) : null;
      return locked && carryOut(transaction, locked, [], judge(historyOf(locked.row)));
    });
  }

  /** Cancels what waits at once, and puts the wish into the inbox of what runs. */
  async cancel(processId: string, userId: string): Promise<Cancelled> {
    return this.prisma.$transaction(async (transaction) => {
      const locked = await lock(transaction, Prisma.sql`id = ${processId}::uuid`);
      if (locked?.row.status === 'pending')
        return {
          kind: 'ended',
          events: (await finish(transaction, locked, [], { status: 'cancelled' })).events,
        };
      if (locked?.row.status !== 'running') return { kind: 'too_late' };
      if (!locked.row.cancelRequestedAt) {
        await transaction.process.update({
          where: { id: processId },
          data: { cancelRequestedAt: locked.now },
        });
        await transaction.processCommand.create({ data: { id: uuid(), processId, kind: 'cancel', userId } });
      }
      return { kind: 'requested' };
    });
  }

  /** Ends what has waited for its first start for longer than its caller wanted. @returns null when it no longer waits so */
  async failOverdue(processId: string, outcome: Outcome): Promise<ProcessEvent[] | null> {
    return this.prisma.$transaction(async (transaction) => {
      const locked = await lock(
        transaction,
        Prisma.sql`id = ${processId}::uuid AND status = 'pending' AND started_at IS NULL AND queue_deadline <= now()`,
      );
      return locked && (await finish(transaction, locked, [], outcome)).events;
    });
  }
}

type Spent = Pick<Outcome, 'usage' | 'costUsd'>;

/** What the attempt has used, and cost: at the prices of its model, where nobody was left to tell. */
async function spentIn(
  client: StatementClient,
  found: VersionedProcess,
  events: NewProcessEvent[],
  told: Spent,
): Promise<Spent> {
  const usage = await usageOf(client, found, events, told);
  const { model } = found.row;
  return { usage, costUsd: told.costUsd ?? (usage && model ? costOfAll(modelOf(model), usage) : null) };
}

/** What the attempt has used: as its end tells or, where nobody was left to tell, as far as its log does. */
async function usageOf(
  client: StatementClient,
  { row }: VersionedProcess,
  events: NewProcessEvent[],
  { usage }: Spent,
): Promise<Usage | null> {
  if (usage || !row.hasStarted) return usage ?? null;
  const waiting = events.findLast((event) => event.type === 'usage');
  if (waiting) return toUsage(waiting);
  const [logged] = await client.$queryRaw<{ payload: Usage }[]>`
    SELECT payload FROM process_events WHERE process_id = ${row.id}::uuid AND type = 'usage' AND seq > (
      SELECT seq FROM process_events
      WHERE process_id = ${row.id}::uuid AND type = 'started' AND (payload->>'attempt')::int = ${row.attempt}
      ORDER BY seq DESC LIMIT 1
    ) ORDER BY seq DESC LIMIT 1`;
  return logged ? toUsage(logged.payload) : null;
}

const toUsage = ({ inputTokens, outputTokens, cacheReadInputTokens, cacheCreationInputTokens }: Usage) => ({
  ...{ inputTokens, outputTokens },
  ...{ cacheReadInputTokens, cacheCreationInputTokens },
});

interface VersionedProcess {
  row: ProcessRow;
  /** Of the row: another as soon as it is written anew. */
  version: string;
  /** By the database's clock. */
  now: Date;
}

type VersionedRow = ProcessRow & { version: string; now: Date };

const VERSIONED_ROW = Prisma.sql`${ROW}, processes.xmin::text AS version, clock_timestamp() AS now`;

const toVersioned = ({ version, now, ...row }: VersionedRow): VersionedProcess => ({ row, version, now });

async function find(
  client: StatementClient,
  condition: Prisma.Sql,
  locking = Prisma.empty,
): Promise<VersionedProcess | null> {
  const [found] = await client.$queryRaw<VersionedRow[]>`
    SELECT ${VERSIONED_ROW} FROM processes WHERE ${condition} ${locking}`;
  return found ? toVersioned(found) : null;
}

const lock = (transaction: Prisma.TransactionClient, condition: Prisma.Sql) =>
  find(transaction, condition, Prisma.sql`FOR UPDATE`);

/** The row has another version than that which was found. */
class RowChanged extends Error {
  override readonly name = 'RowChanged';
}

/** @returns null where the row has changed */
const unlessChanged = <T>(writing: Promise<T>): Promise<T | null> =>
  writing.catch((error: unknown) => {
    if (error instanceof RowChanged) return null;
    throw error;
  });

const asksPermission = ({ request }: ProcessRow) =>
  (request as { permissionMode?: string }).permissionMode === 'ask';

async function carryOut(
  client: StatementClient,
  found: VersionedProcess,
  events: NewProcessEvent[],
  verdict: Verdict,
): Promise<Concluded> {
  const last = await closeQuestions(client, found, events);
  if (verdict.kind === 'again') {
    const spent = await spentIn(client, found, events, verdict.spent);
    return giveBack(client, found, last, { ...verdict, spent });
  }
  const spent = await spentIn(client, found, events, verdict.outcome);
  return finish(client, found, last, { ...verdict.outcome, ...spent });
}

const historyOf = (row: ProcessRow): RunHistory => ({
  attempt: row.attempt,
  maxAttempts: row.maxAttempts,
  retryOn: row.retryOn,
  hasStarted: row.hasStarted,
  crashCount: row.crashCount,
  lossCount: row.lossCount,
  cancelRequested: row.cancelRequestedAt !== null,
  queueTimeoutMs: row.queueDeadline && row.queueDeadline.getTime() - row.createdAt.getTime(),
});

/** What the attempts before this one have used stands in the row. */
const sumOf = (row: ProcessRow, { usage = null, costUsd = null }: Spent) => ({
  usage: addUsage(row.usage as Usage | null, usage) as Prisma.JsonObject | null,
  costUsd: addCost(row.costUsd, costUsd),
});

async function finish(
  client: StatementClient,
  found: VersionedProcess,
  events: NewProcessEvent[],
  outcome: Outcome,
): Promise<Concluded> {
  const { row, now } = found;
  const finished: ProcessRow = {
    ...row,
    status: outcome.status,
    result: outcome.result ?? null,
    structuredResult: outcome.structuredResult ?? null,
    error: outcome.error ?? null,
    stopReason: outcome.stopReason ?? null,
    ...sumOf(row, outcome),
    numTurns: outcome.numTurns ?? null,
    model: outcome.model ?? row.model,
    permissionDenials: (outcome.permissionDenials ?? []) as Prisma.JsonArray,
    filesChanged: outcome.filesChanged ?? null,
    cancelRequestedAt:
      outcome.status === 'cancelled' ? (row.cancelRequestedAt ?? now) : row.cancelRequestedAt,
    owner: null,
    leaseUntil: null,
    retryAt: null,
    lastSeq: row.lastSeq + events.length + 1,
    finishedAt: now,
  };
  const terminal: NewProcessEvent = { type: outcome.status, process: toProcess(finished, null) };
  return release(client, found, finished, [...events, terminal]);
}

/**
 * Writes what has become of a process that its run, or its place in the queue, is taken from: one statement.
 * @returns the next of its session as well, whose wake-up was spent while what came before it was not over
 * @throws RowChanged where it is not as it was found any more: then nothing is written
 */
async function release(
  client: StatementClient,
  { row: { lastSeq }, version, now }: VersionedProcess,
  row: ProcessRow,
  events: NewProcessEvent[],
): Promise<Concluded> {
  // A turn, also where its last attempt never got so far.
  const endsTurn = row.finishedAt !== null && row.startedAt !== null;
  const [written] = await client.$queryRaw<[Released]>`
    WITH process AS (
      UPDATE processes SET status = ${row.status}::process_status, attempt = ${row.attempt}, crash_count = ${row.crashCount},
        loss_count = ${row.lossCount}, has_started = ${row.hasStarted}, owner = ${row.owner}, lease_until = ${toTime(row.leaseUntil)},
        retry_at = ${toTime(row.retryAt)}, cancel_requested_at = ${toTime(row.cancelRequestedAt)},
        finished_at = ${toTime(row.finishedAt)}, result = ${row.result}, structured_result = ${toJson(row.structuredResult)}::json,
        error = ${toJson(row.error)}::jsonb, stop_reason = ${row.stopReason}, usage = ${toJson(row.usage)}::jsonb,
        cost_usd = ${row.costUsd}, num_turns = ${row.numTurns}, model = ${row.model},
        permission_denials = ${toJson(row.permissionDenials)}::jsonb, files_changed = ${toJson(row.filesChanged)}::jsonb,
        last_seq = ${row.lastSeq}
      WHERE id = ${row.id}::uuid AND xmin::text = ${version} RETURNING id
    ), turn AS (
      UPDATE sessions SET head = head + 1 WHERE id = ${row.sessionId}::uuid AND ${endsTurn} AND EXISTS (SELECT FROM process)
    ), entries AS (${addedEvents(lastSeq, events)})
    SELECT EXISTS (SELECT FROM process) AS "isWritten", (SELECT max("createdAt") FROM entries) AS "createdAt",
      next.id AS "nextId", next.retry_at AS "retryAt"
    FROM (VALUES (true)) one LEFT JOIN (
      SELECT id, retry_at FROM processes WHERE session_id = ${row.sessionId}::uuid AND status = 'pending'
      ORDER BY created_at, id LIMIT 1
    ) next ON true`;
  if (!written.isWritten) throw new RowChanged();
  const { createdAt, nextId, retryAt } = written;
  const afterMs = Math.max(0, (retryAt?.getTime() ?? 0) - now.getTime());
  return {
    events: placeEvents({ processId: row.id, lastSeq }, events, createdAt ?? undefined),
    next: nextId === null ? null : { id: nextId, afterMs },
  };
}

interface Released {
  isWritten: boolean;
  /** Null where there were no events. */
  createdAt: Date | null;
  nextId: string | null;
  retryAt: Date | null;
}

const toTime = (time: Date | null) => Prisma.sql`${time?.toISOString() ?? null}::timestamptz`;
const toJson = (value: Prisma.JsonValue) => (value === null ? null : JSON.stringify(value));

/** The last events of a run, followed by the end of what it had asked for and does not need any more. */
async function closeQuestions(
  client: StatementClient,
  { row }: VersionedProcess,
  events: NewProcessEvent[],
): Promise<NewProcessEvent[]> {
  if (!asksPermission(row)) return events;
  const open = new Set(await findOpenQuestions(client, row.id));
  for (const event of events) {
    if (event.type === 'permission_requested') open.add(event.permissionId);
    if (event.type === 'permission_resolved') open.delete(event.permissionId);
  }
  if (open.size === 0) return events;
  // What was answered in time, and not delivered, was answered all the same.
  const answers = await client.$queryRaw<{ permissionId: string; payload: unknown; userId: string | null }[]>`
    SELECT permission_id AS "permissionId", payload, user_id AS "userId" FROM process_commands
    WHERE process_id = ${row.id}::uuid AND permission_id = ANY(${[...open]}::uuid[])`;
  const decisions = new Map(answers.map((answer) => [answer.permissionId, decisionIn(answer)]));
  return [...events, ...[...open].map((id) => toResolved(id, decisions.get(id) ?? WITHDRAWN))];
}

/** Back to the queue, to its old place. What a reader saw of a run that is void is followed by `retrying`. */
async function giveBack(
  client: StatementClient,
  found: VersionedProcess,
  events: NewProcessEvent[],
  { code, afterMs, isLoss, spent }: Extract<Verdict, { kind: 'again' }>,
): Promise<Concluded> {
  const { row, now } = found;
  // What nobody was told of was no attempt: its caller's attempts are for what was tried.
  const attempt = code === null ? row.attempt : row.attempt + 1;
  const retryAt = new Date(now.getTime() + afterMs);
  const retrying: NewProcessEvent[] =
    code === null ? [] : [{ type: 'retrying', attempt, code, retryAt: retryAt.toISOString() }];
  const last = [...events, ...retrying];
  const waiting: ProcessRow = {
    ...row,
    status: 'pending',
    attempt,
    owner: null,
    leaseUntil: null,
    hasStarted: false,
    retryAt: afterMs > 0 ? retryAt : null,
    crashCount: row.crashCount + (isLoss && row.hasStarted ? 1 : 0),
    lossCount: row.lossCount + (isLoss ? 1 : 0),
    ...sumOf(row, spent),
    lastSeq: row.lastSeq + last.length,
  };
  const { events: written } = await release(client, found, waiting, last);
  return { events: written, next: { id: row.id, afterMs } };
}
