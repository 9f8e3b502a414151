import { Injectable } from '@nestjs/common';
import { Prisma } from '../generated/prisma/client.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { IS_FIRST_OF_SESSION } from './process-claims.repository.js';

// docs/adr/0011-callers-take-turns.md: a rank is the number of a round and, within it, the place of the caller. Both numbers are written into ranks.
const TURN = 2 ** 24;
// Odd, and near TURN / the golden ratio: gives each user a place of their own in the round, and spreads new users over it.
const SPREAD = 10_368_889;
const turn = Prisma.raw(String(TURN));

/** A server that is cut off in the middle keeps the lock for so long. */
const SILENCE = '10s';

/** Of those that may be claimed, and those that only wait for their session. */
export const WAITS = Prisma.sql`status = 'pending' AND (retry_at IS NULL OR retry_at <= now())`;

/** The rank of a user's next turn: the first at their place in the round that the queue has not come to. */
const NEXT_TURN = Prisma.sql`(clock.virtual_time + 1 + (
  (share.number::bigint * ${Prisma.raw(String(SPREAD))} - clock.virtual_time - 1) % ${turn} + ${turn}) % ${turn})`;

/** The rank that a user's first should have. What was overtaken while it could not run is one turn ahead, and no more. */
const FIRST_TURN = Prisma.sql`(${NEXT_TURN} - CASE WHEN waiting.lowest <= clock.virtual_time THEN ${turn} ELSE 0 END)`;

/** What is known of all that waits together. */
const SUMMARY = Prisma.sql`min(fair_rank) AS lowest, max(fair_rank) AS highest, count(*) AS count,
  max(fair_rank) FILTER (WHERE is_first) AS last_first, min(fair_rank) FILTER (WHERE NOT is_first) AS first_other`;

/** Whether the ranks are not the turns that follow each other from the first, or what cannot run has turns before what can. */
const IS_OUT_OF_ORDER = Prisma.sql`(waiting.lowest <> ${FIRST_TURN}
  OR waiting.highest <> ${FIRST_TURN} + (waiting.count - 1) * ${turn} OR waiting.last_first > waiting.first_other)`;

export interface NextPlace {
  fairRank: bigint;
  /** The ranks of the user's processes are to be given out anew, once this one has its own. */
  isOutOfOrder: boolean;
  /** 1 is next, as long as nothing is given out anew. */
  position: number;
  /** How many are pending, for whatever reason: of all users, and of this one. */
  pending: { all: number; own: number };
  /** That of the user's share: as long as it is the same, nobody has given a rank, or a name, to a process of theirs. */
  version: string;
}

/**
 * The order in which pending processes are claimed: by `fair_rank`, which is written at submit, so that a claim is a look-up.
 * Callers take turns, always in the same order; `priority` and age say which of a caller's own comes first.
 */
@Injectable()
export class FairOrderRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Users whose turns have gaps, are of the past, or are those of processes whose sessions do not wait for them. */
  async findOutOfOrder(limit: number): Promise<string[]> {
    const rows = await this.prisma.$queryRaw<{ userId: string }[]>`
      SELECT share.user_id AS "userId"
      FROM queue_clock clock, queue_shares share JOIN (
        SELECT user_id, ${SUMMARY}
        FROM (SELECT user_id, fair_rank, ${IS_FIRST_OF_SESSION} AS is_first FROM processes candidate WHERE ${WAITS}) each
        GROUP BY user_id
      ) waiting USING (user_id)
      WHERE ${IS_OUT_OF_ORDER} LIMIT ${limit}`;
    return rows.map(({ userId }) => userId);
  }

  async putInOrder(userId: string): Promise<void> {
    await this.prisma.$transaction(async (transaction) => {
      await lockShare(transaction, userId);
      await giveOutTurns(transaction, userId);
    });
  }
}

/** From here on nobody else gives ranks to the user's processes, until the transaction ends. */
export async function lockShare(transaction: Prisma.TransactionClient, userId: string): Promise<void> {
  const lock = () => transaction.$queryRaw<unknown[]>`
    ${newVersion(userId)} RETURNING set_config('idle_in_transaction_session_timeout', ${SILENCE}, true)`;
  if ((await lock()).length > 0) return;
  // Not `ON CONFLICT DO UPDATE` each time, which would take a number of the sequence each time.
  await transaction.$executeRaw`
    INSERT INTO queue_shares (user_id) VALUES (${userId}::uuid) ON CONFLICT DO NOTHING`;
  await lock();
}

/** A part of a statement: locks the share if it has that version and fewer wait than may, and answers nothing otherwise. */
export const shareOfVersion = (
  userId: string,
  version: string,
  { maxPending }: { maxPending: number },
) => Prisma.sql`
  ${newVersion(userId)} AND xmin::text = ${version}
    AND (SELECT count(*) FROM processes WHERE status = 'pending') < ${maxPending} RETURNING user_id`;

// A row that is written anew, be it with what it was, has another `xmin`.
const newVersion = (userId: string) =>
  Prisma.sql`UPDATE queue_shares SET number = number WHERE user_id = ${userId}::uuid`;

/**
 * A statement, or a part of one, that answers one `NextPlace`: behind all that the user has waiting, before the order among these
 * is looked at, and how full the queue is. Nobody else gives the user a rank or a name for as long as the share has its version.
 */
export const nextPlace = (of: { userId: string; sessionId: string; priority: number }): Prisma.Sql => {
  const { userId, sessionId, priority } = of;
  return Prisma.sql`
    SELECT place.*,
      (SELECT count(*)::int + 1 FROM processes WHERE ${WAITS} AND fair_rank <= place."fairRank") AS position,
      (SELECT json_build_object('all', count(*), 'own', count(*) FILTER (WHERE user_id = ${userId}::uuid))
        FROM processes WHERE status = 'pending') AS pending
    FROM (SELECT ${FIRST_TURN} + waiting.count * ${turn} AS "fairRank", share.xmin::text AS version,
      coalesce(waiting.has_later OR ${IS_OUT_OF_ORDER}, false) AS "isOutOfOrder"
    FROM queue_clock clock, queue_shares share, (
      SELECT ${SUMMARY},
        bool_or(CASE WHEN is_first = will_be_first THEN priority < ${priority} ELSE will_be_first END) AS has_later
      FROM (
        SELECT fair_rank, priority, ${IS_FIRST_OF_SESSION} AS is_first
        FROM processes candidate WHERE user_id = ${userId}::uuid AND ${WAITS}
      ) each, (
        SELECT NOT EXISTS (
          SELECT 1 FROM processes WHERE session_id = ${sessionId}::uuid AND status IN ('pending', 'running')) AS will_be_first
      ) mine
    ) waiting
    WHERE share.user_id = ${userId}::uuid) place`;
};

/**
 * Gives the turns of a user to what they have waiting: first to what its session waits for, then by priority and age. Rows that somebody else has locked are left with
 * their turns: most likely they are being claimed or cancelled. Needs the lock of the share.
 */
export async function giveOutTurns(transaction: Prisma.TransactionClient, userId: string): Promise<void> {
  await transaction.$executeRaw`
    WITH visible AS MATERIALIZED (
      SELECT id, fair_rank FROM processes WHERE user_id = ${userId}::uuid AND ${WAITS}
    ), locked AS MATERIALIZED (
      SELECT id, priority, created_at, ${IS_FIRST_OF_SESSION} AS is_first
      FROM processes candidate WHERE user_id = ${userId}::uuid AND ${WAITS} ORDER BY id FOR UPDATE SKIP LOCKED
    ), turns AS (
      SELECT ${FIRST_TURN} + series.place * ${turn} AS fair_rank
      FROM queue_clock clock, queue_shares share, (SELECT min(fair_rank) AS lowest, count(*) AS count FROM visible) waiting,
        generate_series(0, waiting.count - 1) AS series(place)
      WHERE share.user_id = ${userId}::uuid
    ), free AS (
      SELECT fair_rank, row_number() OVER (ORDER BY fair_rank) AS place FROM turns
      WHERE fair_rank NOT IN (SELECT fair_rank FROM visible WHERE id NOT IN (SELECT id FROM locked))
    ), ordered AS (
      SELECT id, row_number() OVER (ORDER BY is_first DESC, priority DESC, created_at, id) AS place FROM locked
    )
    UPDATE processes SET fair_rank = free.fair_rank FROM ordered JOIN free USING (place)
    WHERE processes.id = ordered.id AND processes.fair_rank <> free.fair_rank`;
}
