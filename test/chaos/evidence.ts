import type { CliWatch, Overlap, SeenLaunch } from './cli-watch.js';
import type { Ledger } from './ledger.js';
import type { ModelCall } from './model-witness.js';
import type { Deed } from './saboteur.js';
import type { Schedule } from './schedule.js';
import type { ServerSlot } from './server-slot.js';
import type { ChaosPostgres } from './stores.js';
import type { World } from './world.js';

export interface ProcessRow {
  id: string;
  sessionId: string;
  /** The first line of its prompt. */
  mark: string;
  status: string;
  attempt: number;
  fence: number;
  lastSeq: number;
  createdAt: Date;
  startedAt: Date | null;
  finishedAt: Date | null;
  cancelRequestedAt: Date | null;
  error: { code: string; detail: string } | null;
  owner: string | null;
  leaseUntil: Date | null;
}

export interface EventRow {
  processId: string;
  seq: number;
  type: string;
  createdAt: Date;
  payload: Record<string, unknown>;
}

/** Everything that is known of one run, once the world is healed and has come to rest. */
export interface Evidence {
  /** When the database was asked. */
  at: number;
  schedule: Schedule;
  leaseTtlMs: number;
  ledger: Pick<Ledger, 'submissions' | 'transcripts' | 'endings' | 'cancels' | 'problems'>;
  rows: ProcessRow[];
  events: Map<string, EventRow[]>;
  calls: ModelCall[];
  strangers: string[];
  launches: SeenLaunch[];
  overlaps: Overlap[];
  deeds: Deed[];
  /** What servers did that none should. */
  problems: string[];
  /** What had not come to rest in time. */
  unsettled: string[];
  /** What servers logged as errors meanwhile, for whoever has to understand a failure. */
  errorLines: string[];
}

const ERROR_LEVEL = 50;

export async function findProcesses(postgres: ChaosPostgres, seed: number): Promise<ProcessRow[]> {
  return postgres.query<ProcessRow & Record<string, unknown>>(
    `SELECT id, session_id AS "sessionId", split_part(prompt, E'\\n', 1) AS mark, status::text, attempt, fence, last_seq AS "lastSeq",
       created_at AS "createdAt", started_at AS "startedAt", finished_at AS "finishedAt", cancel_requested_at AS "cancelRequestedAt", error, owner, lease_until AS "leaseUntil"
     FROM processes WHERE prompt LIKE $1 ORDER BY created_at`,
    [`chaos-${seed}-%`],
  );
}

/** Reads what the database says, and picks from everything else what belongs to the run. */
export async function gatherEvidence(
  world: World,
  run: {
    schedule: Schedule;
    ledger: Ledger;
    deeds: Deed[];
    since: number;
    unsettled: string[];
  },
): Promise<Evidence> {
  const { schedule, ledger, deeds, unsettled } = run;
  const rows = await findProcesses(world.postgres, schedule.seed);
  const sessions = new Set(rows.map(({ sessionId }) => sessionId));
  const events = await world.postgres.query<EventRow & Record<string, unknown>>(
    `SELECT process_id AS "processId", seq, type, created_at AS "createdAt", payload FROM process_events
     WHERE process_id = ANY($1::uuid[]) ORDER BY process_id, seq`,
    [rows.map(({ id }) => id)],
  );
  return {
    at: Date.now(),
    schedule,
    leaseTtlMs: world.timings.LEASE_TTL_MS,
    ledger,
    rows,
    events: new Map(rows.map(({ id }) => [id, events.filter(({ processId }) => processId === id)])),
    calls: world.model.calls.filter(({ mark }) => mark.startsWith(`chaos-${schedule.seed}-`)),
    strangers: world.model.strangers.splice(0),
    ...ofTheRun(world.clis, sessions, run.since),
    deeds,
    problems: world.problems.splice(0),
    unsettled,
    errorLines: world.slots.flatMap((slot) => errorLinesOf(slot, run.since)),
  };
}

function errorLinesOf({ name, incarnations }: ServerSlot, since: number): string[] {
  return incarnations
    .flatMap(({ lines }) => lines)
    .filter((line) => {
      const [, level, at] = /^\{"level":(\d+),"time":(\d+)/.exec(line) ?? [];
      // What is away is said often enough.
      return (
        Number(level) >= ERROR_LEVEL && Number(at) >= since && !/"(unavailable|outcome_unknown)"/.test(line)
      );
    })
    .map((line) => `${name} ${line}`);
}

function ofTheRun({ launches, overlaps }: CliWatch, sessions: Set<string>, since: number) {
  return {
    launches: [...launches.values()]
      .filter((seen) => sessions.has(seen.session) || seen.lastSeenAt >= since)
      .map((seen) => ({ ...seen })),
    overlaps: overlaps.filter(({ session, at }) => sessions.has(session) || at >= since),
  };
}
