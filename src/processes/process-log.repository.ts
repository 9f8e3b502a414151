import { Injectable } from '@nestjs/common';
import { Prisma } from '../generated/prisma/client.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';

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

/** What one run has to write. */
export interface RunBatch {
  run: Run;
  /** How far the writer knows the log: what is sent again after a lost answer is not written again. */
  lastSeq: number;
  /** Storable: see `makeStorable`. */
  events: NewProcessEvent[];
  facts: RunFacts;
}

export interface Appended {
  events: ProcessEvent[];
  cancelRequested: boolean;
}

interface EventRow {
  processId: string;
  seq: number;
  payload: NewProcessEvent;
  createdAt: Date;
}

/** How far a run's process has come. */
export interface RunState {
  fence: number;
  lastSeq: number;
  status: string;
}

/** Owns `process_events`. */
@Injectable()
export class ProcessLogRepository {
  constructor(private readonly prisma: PrismaService) {}

  /**
   * Adds to the logs of several runs: one statement, so all or nothing, that takes the numbers from `last_seq`. The rows are
   * locked in the order of their ids, as whoever locks several does, so that nobody waits in a circle.
   * @returns by process id; a run that is missing is no longer its caller's, or its log has come further
   */
  async append(batches: RunBatch[]): Promise<Map<string, Appended>> {
    const rows = await this.prisma.direct.$queryRaw<
      { processId: string; seq: number; createdAt: Date; cancelRequested: boolean }[]
    >`
      WITH batch AS MATERIALIZED (
        SELECT * FROM json_to_recordset(${JSON.stringify(batches.map(toBatchRow))}::json) AS batch(
          id uuid, fence int, last_seq int, count int, events json, started boolean, engine text, model text,
          cli_version text, cli_session_id text, demo boolean, has_text boolean)
      ), owned AS MATERIALIZED (
        SELECT process.id, batch.count FROM processes process JOIN batch USING (id)
        WHERE process.fence = batch.fence AND process.status = 'running' AND process.last_seq = batch.last_seq
        ORDER BY process.id FOR UPDATE OF process
      ), run AS (
        UPDATE processes process SET
          last_seq = process.last_seq + batch.count,
          has_started = process.has_started OR batch.started,
          started_at = CASE WHEN batch.started THEN coalesce(process.started_at, now()) ELSE process.started_at END,
          first_token_at = CASE WHEN batch.has_text THEN coalesce(process.first_token_at, now()) ELSE process.first_token_at END,
          engine = coalesce(batch.engine, process.engine),
          model = coalesce(batch.model, process.model),
          cli_version = coalesce(batch.cli_version, process.cli_version),
          demo = coalesce(batch.demo, process.demo)
        FROM batch JOIN owned USING (id) WHERE process.id = batch.id
        RETURNING process.id, process.session_id, batch.last_seq AS base, batch.events, batch.cli_session_id,
          process.cancel_requested_at IS NOT NULL AS cancel_requested
      ), conversation AS (
        UPDATE sessions SET cli_session_id = run.cli_session_id
        FROM run WHERE sessions.id = run.session_id AND run.cli_session_id IS NOT NULL
      ), entries AS (
        INSERT INTO process_events (process_id, seq, type, payload, bytes)
        SELECT run.id, run.base + entry.place, entry.value->>'type', entry.value, octet_length(entry.value::text)
        FROM run, json_array_elements(run.events) WITH ORDINALITY AS entry(value, place)
        RETURNING process_id, seq, created_at
      )
      SELECT entries.process_id AS "processId", entries.seq, entries.created_at AS "createdAt",
        run.cancel_requested AS "cancelRequested"
      FROM entries JOIN run ON run.id = entries.process_id ORDER BY entries.process_id, entries.seq`;
    return gather(batches, rows);
  }

  /**
   * Notes that the run begins to act: from then on it counts as started, whatever is heard of it. Not where a cancel was asked
   * for.
   * @returns null when the run is no longer the caller's
   */
  async begin({ processId, fence }: Run): Promise<{ cancelRequested: boolean } | null> {
    const rows = await this.prisma.direct.$queryRaw<{ cancelRequested: boolean }[]>`
      UPDATE processes SET has_started = has_started OR cancel_requested_at IS NULL
      WHERE id = ${processId}::uuid AND fence = ${fence} AND status = 'running'
      RETURNING cancel_requested_at IS NOT NULL AS "cancelRequested"`;
    return rows[0] ?? null;
  }

  /**
   * The part of a log after a seq, in order, as far as both bounds let it; at least one event where there is one.
   * @param maxBytes of all payloads together
   */
  async read(
    processId: string,
    after: number,
    { limit, maxBytes }: { limit: number; maxBytes: number },
  ): Promise<ProcessEvent[]> {
    const rows = await this.prisma.$queryRaw<EventRow[]>`
      SELECT event.process_id AS "processId", event.seq, event.payload, event.created_at AS "createdAt"
      FROM process_events event JOIN (
        SELECT seq, sum(bytes) OVER (ORDER BY seq) - bytes AS before
        FROM process_events WHERE process_id = ${processId}::uuid AND seq > ${after} ORDER BY seq LIMIT ${limit}
      ) page ON page.seq = event.seq AND event.process_id = ${processId}::uuid
      WHERE page.before < ${maxBytes} ORDER BY event.seq`;
    return rows.map(toEvent);
  }

  /** How far the logs have come. */
  async lastSeqs(processIds: string[]): Promise<Map<string, number>> {
    const rows = await this.prisma.$queryRaw<{ id: string; lastSeq: number }[]>`
      SELECT id, last_seq AS "lastSeq" FROM processes WHERE id = ANY(${processIds}::uuid[])`;
    return new Map(rows.map(({ id, lastSeq }) => [id, lastSeq]));
  }

  /** What is known of runs after a write whose answer was lost, by process id. */
  async findRuns(processIds: string[]): Promise<Map<string, RunState>> {
    const rows = await this.prisma.process.findMany({
      where: { id: { in: processIds } },
      select: { id: true, fence: true, lastSeq: true, status: true },
    });
    return new Map(rows.map(({ id, ...state }) => [id, state]));
  }
}

function toBatchRow({ run, lastSeq, events, facts: { started, hasText = false } }: RunBatch) {
  return {
    id: run.processId,
    fence: run.fence,
    last_seq: lastSeq,
    count: events.length,
    events,
    started: started !== undefined,
    engine: started?.engine,
    model: started?.model,
    cli_version: started?.cliVersion,
    cli_session_id: started?.cliSessionId,
    demo: started?.demo,
    has_text: hasText,
  };
}

function gather(
  batches: RunBatch[],
  rows: { processId: string; seq: number; createdAt: Date; cancelRequested: boolean }[],
): Map<string, Appended> {
  const payloads = new Map(batches.map(({ run, lastSeq, events }) => [run.processId, { lastSeq, events }]));
  const appended = new Map<string, Appended>();
  for (const { processId, seq, createdAt, cancelRequested } of rows) {
    const batch = payloads.get(processId);
    const payload = batch?.events[seq - batch.lastSeq - 1];
    if (!payload) continue;
    const written = appended.get(processId) ?? { events: [], cancelRequested };
    written.events.push(toEvent({ processId, seq, payload, createdAt }));
    appended.set(processId, written);
  }
  return appended;
}

/** Adds to a log in a transaction that holds the lock on its process, and that sets `last_seq` itself. */
export async function insertEvents(
  transaction: Prisma.TransactionClient,
  { processId, lastSeq }: { processId: string; lastSeq: number },
  events: NewProcessEvent[],
): Promise<ProcessEvent[]> {
  const rows = await transaction.$queryRaw<{ createdAt: Date }[]>`
    WITH process AS (SELECT ${processId}::uuid AS id) ${addedEvents(lastSeq, events)}`;
  return placeEvents({ processId, lastSeq }, events, rows[0]?.createdAt);
}

/**
 * A part of a statement: adds to the log of the one process whose id is in `process`, or to none where that is empty, and answers
 * when. Needs what `insertEvents` needs.
 */
export const addedEvents = (lastSeq: number, events: NewProcessEvent[]) => Prisma.sql`
  INSERT INTO process_events (process_id, seq, type, payload, bytes)
  SELECT process.id, ${lastSeq} + entry.place, entry.value->>'type', entry.value, octet_length(entry.value::text)
  FROM process, json_array_elements(${JSON.stringify(events)}::json) WITH ORDINALITY AS entry(value, place)
  RETURNING created_at AS "createdAt"`;

/** Events as a reader sees them, once they are written. */
export function placeEvents(
  { processId, lastSeq }: { processId: string; lastSeq: number },
  events: NewProcessEvent[],
  createdAt = new Date(),
): ProcessEvent[] {
  return events.map((payload, index) => toEvent({ processId, seq: lastSeq + 1 + index, payload, createdAt }));
}

const toEvent = ({ processId, seq, createdAt, payload }: EventRow): ProcessEvent => ({
  processId,
  seq,
  createdAt: createdAt.toISOString(),
  ...payload,
});
