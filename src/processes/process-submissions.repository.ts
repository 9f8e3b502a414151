import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import { isStoreOutage, isTransient } from '../platform/prisma/database-failure.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { type SessionChoice, SessionsService } from '../sessions/sessions.service.js';
import { findNextPlace, giveOutTurns, lockShare, type NextPlace } from './fair-order.repository.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import { insertEvents } from './process-log.repository.js';
import { toProcess } from './process-view.js';
import { countUpTo } from './queue-places.repository.js';

/** How long it is tried again: after a deadlock, or to see whether a write was done whose answer was lost. */
const PATIENCE_MS = 5_000;
const RETRY_MS = 100;

export interface NewProcess {
  id: string;
  userId: string;
  session: SessionChoice;
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

export type Submitted =
  Joined | { kind: 'created'; row: ProcessRow; queuePosition: number } | { kind: 'full'; of: 'user' | 'all' };

/** Takes processes in: one transaction for all that a submit writes. */
@Injectable()
export class ProcessSubmissionsRepository {
  constructor(
    private readonly prisma: PrismaService,
    private readonly sessions: SessionsService,
  ) {}

  /** What a name stands for, if anything. */
  findNamed(userId: string, named: NamedRequest): Promise<Joined | null> {
    return findNamed(this.prisma, userId, named);
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
  { mayBeWritten, openSession }: { mayBeWritten: boolean; openSession: () => Promise<void> },
): Promise<Submitted> {
  const { id, userId } = process;
  await lockShare(transaction, userId);
  const row = mayBeWritten ? await transaction.process.findUnique({ where: { id } }) : null;
  if (row) return { kind: 'created', row, queuePosition: await countUpTo(transaction, id) };
  const joined = named && (await findNamed(transaction, userId, named));
  if (joined) return joined;
  const { session, priority } = process;
  const place = await findNextPlace(transaction, { userId, sessionId: session.id, priority });
  const full = fullOf(place, limits);
  if (full) return { kind: 'full', of: full };
  await openSession();
  const created = await create(transaction, process, place);
  if (named) await keepName(transaction, named, created.row);
  return { kind: 'created', ...created };
}

async function create(
  transaction: Prisma.TransactionClient,
  { queueTimeoutMs, session, ...process }: NewProcess,
  place: NextPlace,
): Promise<{ row: ProcessRow; queuePosition: number }> {
  const { id, userId } = process;
  const row = await transaction.process.create({
    data: {
      ...process,
      sessionId: session.id,
      fairRank: place.fairRank,
      queueDeadline: await deadlineAfter(transaction, queueTimeoutMs),
      lastSeq: 2,
    },
  });
  if (place.isOutOfOrder) await giveOutTurns(transaction, userId);
  const queuePosition = place.isOutOfOrder ? await countUpTo(transaction, id) : place.position;
  const events: NewProcessEvent[] = [
    { type: 'created', process: toProcess({ ...row, lastSeq: 1 }, queuePosition) },
    { type: 'queued', position: queuePosition },
  ];
  await insertEvents(transaction, { processId: id, lastSeq: 0 }, events);
  return { row, queuePosition };
}

/** By the database's clock, which all servers share. */
async function deadlineAfter(transaction: Prisma.TransactionClient, ms: number | null): Promise<Date | null> {
  if (ms === null) return null;
  const [{ deadline }] = await transaction.$queryRaw<[{ deadline: Date }]>`
    SELECT now() + ${ms} * interval '1 ms' AS deadline`;
  return deadline;
}

async function findNamed(
  client: Prisma.TransactionClient,
  userId: string,
  { key, requestHash }: NamedRequest,
): Promise<Joined | null> {
  const [found] = await client.$queryRaw<{ processId: string; requestHash: Uint8Array }[]>`
    SELECT process_id AS "processId", request_hash AS "requestHash" FROM idempotency_keys
    WHERE user_id = ${userId}::uuid AND key = ${key} AND expires_at > now()`;
  if (!found) return null;
  const isSame = Buffer.compare(found.requestHash, requestHash) === 0;
  return isSame ? { kind: 'joined', processId: found.processId } : { kind: 'key_reused' };
}

/** In place of one that has expired, if need be. */
async function keepName(
  transaction: Prisma.TransactionClient,
  { key, requestHash, keptMs }: NamedRequest,
  { id, userId }: ProcessRow,
): Promise<void> {
  await transaction.$executeRaw`
    INSERT INTO idempotency_keys (user_id, key, request_hash, process_id, expires_at)
    VALUES (${userId}::uuid, ${key}, ${requestHash}, ${id}::uuid, now() + ${keptMs} * interval '1 ms')
    ON CONFLICT (user_id, key) DO UPDATE SET
      request_hash = excluded.request_hash, process_id = excluded.process_id, expires_at = excluded.expires_at`;
}

/**
 * Exact for a user, whose submits come one after the other. Others' that are being written at the same moment are not seen: over
 * all users there may be as many too many as the servers have connections to the database.
 */
function fullOf({ pending: { all, own } }: NextPlace, limits: QueueLimits): 'user' | 'all' | null {
  if (own >= limits.maxPendingPerUser) return 'user';
  return all >= limits.maxPending ? 'all' : null;
}
