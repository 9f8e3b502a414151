import type { Evidence } from './evidence.js';
import type { Violation } from './invariants.js';
import type { Timings } from './timings.js';

const MOST_EXPLAINED = 5;
const PAYLOAD_CHARACTERS = 160;
const MOST_ERROR_LINES = 12;
const LINE_CHARACTERS = 1500;

export const NOTHING_TO_EXPLAIN = 'All promises were kept.';

/** What a failed run says: what was seen, of which process, with its log and all that happened meanwhile. */
export function explain(violations: Violation[], evidence: Evidence, timings: Timings): string {
  if (violations.length === 0) return NOTHING_TO_EXPLAIN;
  const { schedule } = evidence;
  return [
    `${violations.length} broken promises under seed ${schedule.seed}. To run it again:`,
    `  ${commandFor(schedule.seed, timings)}`,
    ...violations.map(({ breach, invariant, seen }) => `- [${breach}, invariant ${invariant}] ${seen}`),
    ...[...new Set(violations.map(({ processId }) => processId))]
      .filter((id) => id !== null)
      .slice(0, MOST_EXPLAINED)
      .map((id) => explainProcess(id, evidence)),
    `Looked at ${time(evidence.at)}. What was done:`,
    ...evidence.deeds.map(
      ({ kind, at, until, what }) =>
        `  ${time(at)}–${until ? time(until) : '…'} ${kind}: ${what ?? 'hit nothing'}`,
    ),
    'What servers logged as errors, the last of it:',
    ...evidence.errorLines.slice(-MOST_ERROR_LINES).map((line) => `  ${line.slice(0, LINE_CHARACTERS)}`),
  ].join('\n');
}

function commandFor(seed: number, timings: Timings): string {
  const given = Object.entries(timings).map(([name, value]) => `${name}=${String(value)}`);
  return [`CHAOS_SEED=${seed}`, ...given, 'npm run test:chaos'].join(' ');
}

function explainProcess(id: string, { rows, events, calls, launches, ledger }: Evidence): string {
  const row = rows.find((candidate) => candidate.id === id);
  const record = ledger.submissions.find(
    ({ submission, accepted }) =>
      submission.mark === row?.mark || accepted.some(({ processId }) => processId === id),
  );
  const lines = [
    `Process ${id}: ${JSON.stringify(row)}`,
    `  submitted: ${JSON.stringify(record?.submission)}`,
    ...(record?.accepted ?? []).map(({ at, by }) => `  accepted ${time(at)} ${by}`),
    ...(record?.refused ?? []).map(
      ({ at, by, status, code }) => `  refused ${time(at)} ${status} ${code} ${by}`,
    ),
    ...(record?.broken ?? []).map(({ at, by, reason }) => `  no answer ${time(at)} ${by}: ${reason}`),
    ...ledger.cancels
      .filter(({ processId }) => processId === id)
      .map(({ askedAt, answer }) => `  cancel asked ${time(askedAt)}: ${JSON.stringify(answer)}`),
    ...calls
      .filter(({ mark }) => mark === row?.mark)
      .map(({ at, launch, turn }) => `  model asked ${time(at)} by CLI ${launch.slice(0, 12)}, turn ${turn}`),
    ...launches
      .filter(({ session }) => session === row?.sessionId)
      .map(
        (seen) =>
          `  CLI ${seen.id} at ${seen.slot} (server pid ${seen.owner.pid}) seen ${time(seen.firstSeenAt)}–${time(seen.lastSeenAt)}, pids ${[...seen.pids].join()}`,
      ),
    ...(events.get(id) ?? []).map(
      ({ seq, type, createdAt, payload }) =>
        `  log ${seq} ${time(createdAt.getTime())} ${type} ${JSON.stringify(payload).slice(0, PAYLOAD_CHARACTERS)}`,
    ),
  ];
  return lines.join('\n');
}

const time = (at: number) => new Date(at).toISOString().slice(11, 23);
