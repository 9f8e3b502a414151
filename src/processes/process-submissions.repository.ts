import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import { hasDoneNothing, isStoreOutage, isTransient } from '../platform/prisma/database-failure.js';
import type { StatementClient } from '../platform/prisma/direct-statements.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { openSession, sessionNotFound, SessionsService } from '../sessions/sessions.service.js';
import {
  giveOutTurns,
  lockShare,
  type NextPlace,
  nextPlace,
  shareOfVersion,
} from './fair-order.repository.js';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';
import { addedEvents, insertEvents, placeEvents } from './process-log.repository.js';
import { type NewProcess, newRow } from './process-row.repository.js';
import { toProcess } from './process-view.js';
import { countUpTo } from './queue-places.repository.js';

/** How long it is tried again: after a deadlock, or to see whether a write was done whose answer was lost. */
const PATIENCE_MS = 5_000;
const RETRY_MS = 100;

/** What the caller calls this request, so that sending it twice makes one process. */
export interface NamedRequest {
  key: string;
  requestHash: Uint8Array<ArrayBuffer>;
  /** How long the name stands for the process. */
  keptMs: number;
}

interface QueueLimits {
  maxPending: number;
  maxPendingPerUser: number;
}

interface Submission {
  process: NewProcess;
  named: NamedRequest | null;
  limits: QueueLimits;
}

/** The commit was not answered, and nothing could be read since: the process may be there, or not. */
export class SubmitUnanswered extends Error {
  override readonly name = 'SubmitUnanswered';

  constructor(
    readonly processId: string,
    cause: unknown,
  ) {
    super('The commit was not answered.', { cause });
  }
}

/** What undoes a fork for which there is no place any more. */
class NoPlaceForFork extends Error {
  override readonly name = 'NoPlaceForFork';
}

/** What the name already stands for. */
export type Joined = { kind: 'joined'; processId: string } | { kind: 'key_reused' };

interface Created {
  kind: 'created';
  row: ProcessRow;
  queuePosition: number;
  /** The beginning of its log; nothing where it was written by a try before, whose answer was lost. */
  events: ProcessEvent[];
}

/** Why nothing is made. */
type Refusal = Joined | { kind: 'full'; of: 'user' | 'all' };

export type Submitted = Created | Refusal;

/** Takes processes in: all that a submit writes, or nothing. */
@Injectable()
export class ProcessSubmissionsRepository {
  constructor(
    private readonly prisma: PrismaService,
    private readonly sessions: SessionsService,
  ) {}

  /** What a name stands for, if anything. */
  async findNamed(userId: string, named: NamedRequest): Promise<Joined | null> {
    const [{ joined }] = await this.prisma.$queryRaw<[{ joined: Joined | null }]>`
      SELECT (${joinedBy(userId, named)}) AS joined`;
    return joined;
  }

  /**
   * Writes the process, its session, the first entries of its log, its place in the queue and its name, or finds that the name
   * or the queue stands against it. When the answer to the commit is lost, looks before it concludes: the second try waits for
   * whatever is left of the first, which holds the lock of the user's share, and leaves it a share of another version.
   * @throws SubmitUnanswered
   */
  async submit(submission: Submission): Promise<Submitted> {
    const commit = { wasTried: false };
    let giveUpAt: number | null = null;
    for (;;) {
      try {
        const submitted = commit.wasTried ? null : await this.tryAtOnce(submission, commit);
        return submitted ?? (await this.submitLocked(submission, commit));
      } catch (error) {
        if (error instanceof NoPlaceForFork) return { kind: 'full', of: 'all' };
        if (!isTransient(error) || (isStoreOutage(error) && !commit.wasTried)) throw error;
        giveUpAt ??= performance.now() + PATIENCE_MS;
        if (performance.now() > giveUpAt)
          throw commit.wasTried ? new SubmitUnanswered(submission.process.id, error) : error;
        await sleep(RETRY_MS);
      }
    }
  }

  /**
   * Without a transaction, in the hope that nobody gives the user's processes ranks between the look and the write.
   * @returns null where somebody has, or more is to be written than one statement can
   */
  private async tryAtOnce(submission: Submission, commit: { wasTried: boolean }): Promise<Submitted | null> {
    const { process, named, limits } = submission;
    if (process.session.kind === 'forked') return null;
    const look = await lookFor(this.prisma.direct, process, named);
    if (!look) return null;
    const refusal = refusalOf(look, limits);
    if (refusal) return refusal;
    if (look.isOutOfOrder) return null;
    commit.wasTried = true;
    try {
      const created = await create(this.prisma.direct, submission, look);
      commit.wasTried = created !== null;
      return created;
    } catch (error) {
      commit.wasTried = !hasDoneNothing(error);
      throw error;
    }
  }

  private async submitLocked(submission: Submission, commit: { wasTried: boolean }): Promise<Submitted> {
    const { process, named, limits } = submission;
    const { id, userId, session } = process;
    return this.prisma.$transaction(async (transaction) => {
      await lockShare(transaction, userId);
      const row = commit.wasTried ? await transaction.process.findUnique({ where: { id } }) : null;
      if (row) return { kind: 'created', row, queuePosition: await countUpTo(transaction, id), events: [] };
      const look = await lookFor(transaction, process, named);
      if (!look) throw new Error('The table queue_clock has lost its row.');
      const refusal = refusalOf(look, limits);
      if (refusal) return refusal;
      if (session.kind === 'forked') await this.sessions.makeFork(transaction, userId, session);
      const made = look.isOutOfOrder ? createOutOfOrder : create;
      const created = await made(transaction, submission, look);
      // Under the lock that is all that may have come in between. The commit leaves the share a version that refuses whatever is
      // still on its way of a first try; a fork has none.
      if (!created && session.kind === 'forked') throw new NoPlaceForFork();
      if (!created) return { kind: 'full', of: 'all' };
      commit.wasTried = true;
      return created;
    });
  }
}

interface Look extends NextPlace {
  /** What the name stands for already. */
  joined: Joined | null;
  /** By the database's clock, which all servers share. */
  now: Date;
}

/**
 * All that is to be known before a process is written: one statement, since each is a part of what a caller waits for.
 * @returns null where the user has no share yet
 */
async function lookFor(
  client: StatementClient,
  { userId, session, priority }: NewProcess,
  named: NamedRequest | null,
): Promise<Look | null> {
  const joined = named ? joinedBy(userId, named) : Prisma.sql`NULL::json`;
  const [look] = await client.$queryRaw<Look[]>`
    SELECT place.*, now()::timestamptz(3) AS now, (${joined}) AS joined
    FROM (${nextPlace({ userId, sessionId: session.id, priority })}) place`;
  return look ?? null;
}

/** A part of a statement that answers a `Joined`, or nothing where the name stands for nothing. */
const joinedBy = (userId: string, { key, requestHash }: NamedRequest) => Prisma.sql`
  SELECT CASE WHEN request_hash = ${requestHash} THEN json_build_object('kind', 'joined', 'processId', process_id)
    ELSE json_build_object('kind', 'key_reused') END
  FROM idempotency_keys WHERE user_id = ${userId}::uuid AND key = ${key} AND expires_at > now()`;

/**
 * Makes a process at the place that was seen.
 * @returns null where that place is not sure any more, or none is left
 */
async function create(
  client: StatementClient,
  submission: Submission,
  { version, position, fairRank, now }: Look,
): Promise<Created | null> {
  const row = newRow(submission.process, { fairRank, createdAt: now });
  const events = firstEvents(row, position);
  const inserted = await insert(client, submission, { row, version, events });
  if (!inserted) return null;
  const placed = placeEvents({ processId: row.id, lastSeq: 0 }, events, inserted.loggedAt);
  return { kind: 'created', row, queuePosition: position, events: placed };
}

/** The same where the user's turns are to be given out anew: under the lock of the share, and the log begins after that. */
async function createOutOfOrder(
  transaction: Prisma.TransactionClient,
  submission: Submission,
  { version, fairRank, now }: Look,
): Promise<Created | null> {
  const row = newRow(submission.process, { fairRank, createdAt: now });
  if (!(await insert(transaction, submission, { row, version, events: [] }))) return null;
  await giveOutTurns(transaction, row.userId);
  const queuePosition = await countUpTo(transaction, row.id);
  const log = { processId: row.id, lastSeq: 0 };
  const events = await insertEvents(transaction, log, firstEvents(row, queuePosition));
  return { kind: 'created', row, queuePosition, events };
}

const firstEvents = (row: ProcessRow, position: number): NewProcessEvent[] => [
  { type: 'created', process: toProcess({ ...row, lastSeq: 1 }, position) },
  { type: 'queued', position },
];

/**
 * The session, the process, its first events and its name: one statement.
 * @returns null where the share has another version by now, or the queue is full: then nothing is written
 * @throws AppError `session_not_found`
 */
async function insert(
  client: StatementClient,
  { process, named, limits }: Submission,
  { row, version, events }: { row: ProcessRow; version: string; events: NewProcessEvent[] },
): Promise<{ loggedAt: Date } | null> {
  const name = named ? Prisma.sql`, name AS (${keptName(row.userId, named)})` : Prisma.empty;
  const session = openSession(row.userId, process.session, Prisma.sql`EXISTS (SELECT FROM share)`);
  // What the table gives to a column that is not named here is what `newRow` says.
  const [inserted] = await client.$queryRaw<[{ isInTime: boolean; isMade: boolean; loggedAt: Date }]>`
    WITH share AS (${shareOfVersion(row.userId, version, limits)}), session AS (${session}), process AS (
      INSERT INTO processes (id, user_id, session_id, prompt, prompt_preview, request, metadata, priority, max_attempts, retry_on,
        queue_deadline, created_at, fair_rank, last_seq, demo)
      SELECT ${row.id}::uuid, ${row.userId}::uuid, session.id, ${row.prompt}, ${row.promptPreview},
        ${JSON.stringify(row.request)}::jsonb, ${JSON.stringify(row.metadata)}::jsonb, ${row.priority}, ${row.maxAttempts},
        ${row.retryOn}::text[], ${row.queueDeadline?.toISOString() ?? null}::timestamptz, ${row.createdAt.toISOString()}::timestamptz,
        ${row.fairRank}, ${row.lastSeq}, ${row.demo}
      FROM share, session RETURNING id
    ), entries AS (${addedEvents(0, events)})${name}
    SELECT EXISTS (SELECT FROM share) AS "isInTime", EXISTS (SELECT FROM process) AS "isMade",
      now()::timestamptz(3) AS "loggedAt"`;
  if (!inserted.isInTime) return null;
  if (!inserted.isMade) throw sessionNotFound(row.sessionId);
  return inserted;
}

/** A part of a statement: keeps a name for the process, in place of one that has expired, if need be. */
const keptName = (userId: string, { key, requestHash, keptMs }: NamedRequest) => Prisma.sql`
  INSERT INTO idempotency_keys (user_id, key, request_hash, process_id, expires_at)
  SELECT ${userId}::uuid, ${key}, ${requestHash}, process.id, now() + ${keptMs} * interval '1 ms' FROM process
  ON CONFLICT (user_id, key) DO UPDATE SET
    request_hash = excluded.request_hash, process_id = excluded.process_id, expires_at = excluded.expires_at`;

/**
 * Exact for a user, whose submits come one after the other. Over all users it is counted again by the statement that writes, and
 * others that are being written at the same moment are not seen: there may be as many too many as the servers have connections to
 * the database.
 */
function refusalOf({ joined, pending: { all, own } }: Look, limits: QueueLimits): Refusal | null {
  if (joined) return joined;
  if (own >= limits.maxPendingPerUser) return { kind: 'full', of: 'user' };
  return all >= limits.maxPending ? { kind: 'full', of: 'all' } : null;
}
