import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import { isStoreOutage, isTransient } from '../platform/prisma/database-failure.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { sessionNotFound, SessionsService } from '../sessions/sessions.service.js';
import { giveOutTurns, lockShare, type NextPlace, nextPlace } from './fair-order.repository.js';
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

/** What the name already stands for. */
export type Joined = { kind: 'joined'; processId: string } | { kind: 'key_reused' };

interface Created {
  kind: 'created';
  row: ProcessRow;
  queuePosition: number;
  /** The beginning of its log; nothing where it was written by a try before, whose answer was lost. */
  events: ProcessEvent[];
}

export type Submitted = Joined | Created | { kind: 'full'; of: 'user' | 'all' };

/** Takes processes in: one transaction for all that a submit writes. */
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
   * whatever is left of the first, which holds the lock of the user's share.
   * @throws SubmitUnanswered
   */
  async submit(submission: Submission): Promise<Submitted> {
    const { userId, session } = submission.process;
    const commit = { wasTried: false };
    let giveUpAt: number | null = null;
    for (;;) {
      try {
        return await this.prisma.$transaction(async (transaction) => {
          const submitted = await write(transaction, submission, {
            mayBeWritten: commit.wasTried,
            openSession: () => this.sessions.open(transaction, userId, session),
          });
          commit.wasTried = true;
          return submitted;
        });
      } catch (error) {
        if (!isTransient(error) || (isStoreOutage(error) && !commit.wasTried)) throw error;
        giveUpAt ??= performance.now() + PATIENCE_MS;
        if (performance.now() > giveUpAt)
          throw commit.wasTried ? new SubmitUnanswered(submission.process.id, error) : error;
        await sleep(RETRY_MS);
      }
    }
  }
}

async function write(
  transaction: Prisma.TransactionClient,
  { process, named, limits }: Submission,
  { mayBeWritten, openSession }: { mayBeWritten: boolean; openSession: () => Promise<Prisma.Sql> },
): Promise<Submitted> {
  const { id, userId } = process;
  await lockShare(transaction, userId);
  const row = mayBeWritten ? await transaction.process.findUnique({ where: { id } }) : null;
  if (row) return { kind: 'created', row, queuePosition: await countUpTo(transaction, id), events: [] };
  const { joined, now, ...place } = await look(transaction, process, named);
  if (joined) return joined;
  const full = fullOf(place, limits);
  if (full) return { kind: 'full', of: full };
  const session = await openSession();
  return create(transaction, { row: newRow(process, { ...place, createdAt: now }), session, named }, place);
}

interface Look extends NextPlace {
  /** What the name stands for already. */
  joined: Joined | null;
  /** When the transaction began, by the database's clock, which all servers share. */
  now: Date;
}

/** All that is to be known before a process is written: one statement, since each is a part of what a caller waits for. */
async function look(
  transaction: Prisma.TransactionClient,
  { userId, session, priority }: NewProcess,
  named: NamedRequest | null,
): Promise<Look> {
  const joined = named ? joinedBy(userId, named) : Prisma.sql`NULL::json`;
  const [seen] = await transaction.$queryRaw<Look[]>`
    SELECT place.*, now()::timestamptz(3) AS now, (${joined}) AS joined
    FROM (${nextPlace({ userId, sessionId: session.id, priority })}) place`;
  if (!seen) throw new Error('The table queue_clock has lost its row.');
  return seen;
}

/** A part of a statement that answers a `Joined`, or nothing where the name stands for nothing. */
const joinedBy = (userId: string, { key, requestHash }: NamedRequest) => Prisma.sql`
  SELECT CASE WHEN request_hash = ${requestHash} THEN json_build_object('kind', 'joined', 'processId', process_id)
    ELSE json_build_object('kind', 'key_reused') END
  FROM idempotency_keys WHERE user_id = ${userId}::uuid AND key = ${key} AND expires_at > now()`;

interface Creation {
  row: ProcessRow;
  session: Prisma.Sql;
  named: NamedRequest | null;
}

async function create(
  transaction: Prisma.TransactionClient,
  creation: Creation,
  place: NextPlace,
): Promise<Created> {
  const { row } = creation;
  const log = { processId: row.id, lastSeq: 0 };
  if (!place.isOutOfOrder) {
    const queuePosition = place.position;
    const events = firstEvents(row, queuePosition);
    await insert(transaction, creation, events);
    return { kind: 'created', row, queuePosition, events: placeEvents(log, events, row.createdAt) };
  }
  await insert(transaction, creation, []);
  await giveOutTurns(transaction, row.userId);
  const queuePosition = await countUpTo(transaction, row.id);
  const events = await insertEvents(transaction, log, firstEvents(row, queuePosition));
  return { kind: 'created', row, queuePosition, events };
}

const firstEvents = (row: ProcessRow, position: number): NewProcessEvent[] => [
  { type: 'created', process: toProcess({ ...row, lastSeq: 1 }, position) },
  { type: 'queued', position },
];

/** The session, the process, its first events and its name: one statement. @throws AppError `session_not_found` */
async function insert(
  transaction: Prisma.TransactionClient,
  { row, session, named }: Creation,
  events: NewProcessEvent[],
): Promise<void> {
  const name = named ? Prisma.sql`, name AS (${keptName(row.userId, named)})` : Prisma.empty;
  // What the table gives to a column that is not named here is what `newRow` says.
  const inserted = await transaction.$queryRaw<unknown[]>`
    WITH session AS (${session}), process AS (
      INSERT INTO processes (id, user_id, session_id, prompt, prompt_preview, request, metadata, priority, max_attempts, retry_on,
        queue_deadline, fair_rank, last_seq, demo)
      SELECT ${row.id}::uuid, ${row.userId}::uuid, session.id, ${row.prompt}, ${row.promptPreview},
        ${JSON.stringify(row.request)}::jsonb, ${JSON.stringify(row.metadata)}::jsonb, ${row.priority}, ${row.maxAttempts},
        ${row.retryOn}::text[], ${row.queueDeadline?.toISOString() ?? null}::timestamptz, ${row.fairRank}, ${row.lastSeq},
        ${row.demo}
      FROM session RETURNING id
    ), entries AS (${addedEvents(0, events)})${name}
    SELECT id FROM process`;
  if (inserted.length === 0) throw sessionNotFound(row.sessionId);
}

/** A part of a statement: keeps a name for the process, in place of one that has expired, if need be. */
const keptName = (userId: string, { key, requestHash, keptMs }: NamedRequest) => Prisma.sql`
  INSERT INTO idempotency_keys (user_id, key, request_hash, process_id, expires_at)
  SELECT ${userId}::uuid, ${key}, ${requestHash}, process.id, now() + ${keptMs} * interval '1 ms' FROM process
  ON CONFLICT (user_id, key) DO UPDATE SET
    request_hash = excluded.request_hash, process_id = excluded.process_id, expires_at = excluded.expires_at`;

/**
 * Exact for a user, whose submits come one after the other. Others' that are being written at the same moment are not seen: over
 * all users there may be as many too many as the servers have connections to the database.
 */
function fullOf(
  { pending: { all, own } }: Pick<NextPlace, 'pending'>,
  limits: QueueLimits,
): 'user' | 'all' | null {
  if (own >= limits.maxPendingPerUser) return 'user';
  return all >= limits.maxPending ? 'all' : null;
}
