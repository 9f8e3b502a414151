import { Injectable } from '@nestjs/common';
import { PrismaService } from '../platform/prisma/prisma.service.js';

/** The right to add to a transcript: its session's running process, by the fence of its claim. */
export interface TranscriptWriter {
  readonly processId: string;
  readonly fence: number;
}

export interface NewEntries {
  cliSessionId: string;
  subpath: string;
  entries: { uuid: string | null; spoken: boolean; json: string }[];
}

export interface KeptEntry {
  /** The same for all of a session; null where no CLI has told it. */
  cliSessionId: string | null;
  subpath: string;
  json: string;
}

export interface SpokenEntry {
  ordinal: number;
  processId: string | null;
  json: string;
  bytes: number;
}

/** Owns `session_entries`. */
@Injectable()
export class TranscriptsRepository {
  constructor(private readonly prisma: PrismaService) {}

  /**
   * Adds to the transcript of the session that the process belongs to. What is there already, by its uuid, is left as it is. The
   * process is locked before the session, as whoever locks both does.
   * @returns the session's last ordinal from then on; null where the writer's process is not running, or not its own any more
   */
  async append(
    { processId, fence }: TranscriptWriter,
    { cliSessionId, subpath, entries }: NewEntries,
  ): Promise<number | null> {
    const names = entries.map(({ uuid }) => uuid ?? '');
    const spoken = entries.map((entry) => entry.spoken);
    const values = entries.map(({ json }) => json);
    const written = await this.prisma.direct.$queryRaw<{ lastOrdinal: number }[]>`
      WITH run AS MATERIALIZED (
        SELECT session_id FROM processes
        WHERE id = ${processId}::uuid AND fence = ${fence} AND status = 'running' FOR SHARE
      ), session AS (
        UPDATE sessions SET last_ordinal = last_ordinal + ${entries.length}, cli_session_id = ${cliSessionId}
        FROM run WHERE sessions.id = run.session_id
        RETURNING sessions.id, sessions.head, sessions.last_ordinal, sessions.last_ordinal - ${entries.length} AS base
      ), kept AS (
        INSERT INTO session_entries (session_id, ordinal, subpath, uuid, process_id, head, spoken, entry)
        SELECT session.id, session.base + entry.place, ${subpath}, nullif(entry.uuid, ''), ${processId}::uuid, session.head,
          entry.spoken, entry.json::json
        FROM session, unnest(${names}::text[], ${spoken}::boolean[], ${values}::text[])
          WITH ORDINALITY AS entry(uuid, spoken, json, place)
        ON CONFLICT (session_id, subpath, uuid) WHERE uuid IS NOT NULL DO NOTHING
      )
      SELECT last_ordinal AS "lastOrdinal" FROM session`;
    return written[0]?.lastOrdinal ?? null;
  }

  /**
   * The last turns of it that come to no more than so many bytes, the last one in any case, in the order in which they were
   * written. By whole turns: what goes on from a tool's result without its call would be refused.
   */
  readLatest(sessionId: string, maxBytes: number): Promise<KeptEntry[]> {
    return this.prisma.$queryRaw`
      SELECT (SELECT cli_session_id FROM sessions WHERE id = ${sessionId}::uuid) AS "cliSessionId",
        subpath, entry::text AS json
      FROM session_entries
      WHERE session_id = ${sessionId}::uuid AND head >= (
        SELECT min(head) FROM (
          SELECT head, row_number() OVER newest_first AS place, sum(bytes) OVER newest_first AS total
          FROM (
            SELECT head, sum(octet_length(entry::text)) AS bytes
            FROM session_entries WHERE session_id = ${sessionId}::uuid GROUP BY head
          ) turn
          WINDOW newest_first AS (ORDER BY head DESC)
        ) bounded
        WHERE place = 1 OR total <= ${maxBytes})
      ORDER BY ordinal`;
  }

  /** What may have been said in the conversation itself after an ordinal, as far as both bounds let it; one at least. */
  readSpoken(
    sessionId: string,
    after: number,
    { limit, maxBytes }: { limit: number; maxBytes: number },
  ): Promise<SpokenEntry[]> {
    return this.prisma.$queryRaw`
      SELECT ordinal, process_id AS "processId", json, bytes FROM (
        SELECT *, sum(bytes) OVER (ORDER BY ordinal) - bytes AS before FROM (
          SELECT ordinal, process_id, entry::text AS json, octet_length(entry::text) AS bytes
          FROM session_entries
          WHERE session_id = ${sessionId}::uuid AND ordinal > ${after} AND subpath = '' AND spoken
          ORDER BY ordinal LIMIT ${limit}
        ) page
      ) bounded
      WHERE before < ${maxBytes} ORDER BY ordinal`;
  }

  async countGap(sessionId: string): Promise<void> {
    await this.prisma.session.updateMany({
      where: { id: sessionId },
      data: { transcriptGaps: { increment: 1 } },
    });
  }
}
