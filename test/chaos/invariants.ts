import type { Evidence, EventRow } from './evidence.js';

/** What a broken promise is counted as. `other`: neither lost, nor doubled, leaked or with a gap, and still wrong. */
export type Breach = 'lost' | 'doubled' | 'leaked' | 'gap' | 'other';

export interface Violation {
  breach: Breach;
  /** Of docs/durability.md; 0 for what no number says. */
  invariant: number;
  processId: string | null;
  seen: string;
}

const TERMINAL = new Set(['completed', 'failed', 'cancelled']);
/** Beyond ttl, for a machine that is busy: to be killed takes no time, to be seen dead a sample. */
const CLI_GRACE_MS = 2500;
/** A request that was on its way when the end was written, to a model that may be held up as well. */
const CALL_GRACE_MS = 4000;

/** The eight invariants, each by all that can be known of it. Empty when all promises were kept. */
export function findViolations(evidence: Evidence): Violation[] {
  return [
    nothingAcceptedDisappears,
    noTwoClisOfOneProcess,
    nothingRunsTwice,
    theEndIsTheEnd,
    logsHaveNoGap,
    readersSeeAllOfIt,
    aCancelHasOneWinner,
    noCliOutlivesItsOwner,
    oneKeyOneProcess,
    everybodyIsAnswered,
    nothingElseGoesWrong,
  ].flatMap((check) => check(evidence));
}

function nothingAcceptedDisappears({ ledger, rows, calls }: Evidence): Violation[] {
  const known = new Map(rows.map((row) => [row.id, row]));
  const missing = ledger.submissions.flatMap(({ submission, accepted }) =>
    accepted
      .filter(({ processId }) => !known.has(processId))
      .map(({ processId, by }) =>
        lost(
          1,
          processId,
          `${submission.mark} was accepted as ${processId} (${by}), and there is no such row.`,
        ),
      ),
  );
  const unended = rows
    .filter(({ status }) => !TERMINAL.has(status))
    .map(({ id, mark, status }) => lost(1, id, `${mark} never ended: it is ${status}.`));
  const marks = new Set(rows.map(({ mark }) => mark));
  const ghosts = [...new Set(calls.map(({ mark }) => mark))]
    .filter((mark) => !marks.has(mark))
    .map((mark) => lost(1, null, `The model was asked for ${mark}, of which the database knows nothing.`));
  return [...missing, ...unended, ...ghosts];
}

function noTwoClisOfOneProcess({ overlaps, rows }: Evidence): Violation[] {
  return overlaps.map(({ session, at, launches }) => {
    const row = rows.find(({ sessionId }) => sessionId === session);
    const seen = `Two CLIs (launches ${launches.join(' and ')}) for session ${session} at ${time(at)}.`;
    return { breach: 'doubled', invariant: 2, processId: row?.id ?? null, seen };
  });
}

/** The model itself says who asked it: a launch is one CLI. */
function nothingRunsTwice({ rows, calls, ledger }: Evidence): Violation[] {
  return rows.flatMap(({ id, mark }): Violation[] => {
    const asked = calls.filter((call) => call.mark === mark);
    const launches = [...new Set(asked.map(({ launch }) => launch))];
    const retry = ledger.submissions.find(({ submission }) => submission.mark === mark)?.submission.retry;
    const allowed = retry?.maxAttempts ?? 1;
    const doubled = (seen: string): Violation => ({ breach: 'doubled', invariant: 2, processId: id, seen });
    const times = asked.map(({ launch, at }) => `${launch.slice(0, 8)} at ${time(at)}`).join(', ');
    if (launches.length > allowed)
      return [doubled(`${mark} asked the model from ${launches.length} CLIs; ${allowed} allowed: ${times}.`)];
    const order = asked.map(({ launch }) => launch).filter((launch, index, all) => launch !== all[index - 1]);
    return order.length > launches.length ? [doubled(`${mark} ran in two CLIs at once: ${times}.`)] : [];
  });
}

function theEndIsTheEnd({ rows, events, ledger, calls }: Evidence): Violation[] {
  const byId = new Map(rows.map((row) => [row.id, row]));
  const changed = ledger.endings.flatMap(({ processId, status, finishedAt, by }) => {
    const row = byId.get(processId);
    if (!row || (row.status === status && row.finishedAt?.toISOString() === finishedAt)) return [];
    const now = `${row.status} at ${row.finishedAt?.toISOString() ?? '-'}`;
    return [other(3, processId, `Shown as ${status} at ${String(finishedAt)} (${by}), it is ${now} now.`)];
  });
  const endings = rows.flatMap((row) => {
    const ends = (events.get(row.id) ?? []).filter(({ type }) => TERMINAL.has(type));
    const last = events.get(row.id)?.at(-1);
    if (!TERMINAL.has(row.status))
      return ends.length === 0
        ? []
        : [other(3, row.id, `It is ${row.status} and has a terminal event ${ends[0]?.type ?? ''}.`)];
    if (ends.length === 1 && ends[0] === last && last?.type === row.status) return [];
    const found = ends.map(({ seq, type }) => `${seq} ${type}`).join(', ') || 'none';
    return [
      other(3, row.id, `It is ${row.status}; terminal events: ${found}; the last is ${last?.seq ?? 0}.`),
    ];
  });
  const late = calls.flatMap(({ mark, at, launch }) => {
    const row = rows.find((candidate) => candidate.mark === mark);
    if (!row?.finishedAt || at <= row.finishedAt.getTime() + CALL_GRACE_MS) return [];
    const seen = `CLI ${launch} asked the model at ${time(at)}; it had ended at ${row.finishedAt.toISOString()}.`;
    return [{ breach: 'leaked' as const, invariant: 6, processId: row.id, seen }];
  });
  return [...changed, ...endings, ...late];
}

function logsHaveNoGap({ rows, events }: Evidence): Violation[] {
  return rows.flatMap(({ id, lastSeq }) => {
    const seqs = (events.get(id) ?? []).map(({ seq }) => seq);
    const isWhole = seqs.length === lastSeq && seqs.every((seq, index) => seq === index + 1);
    return isWhole ? [] : [gap(id, `Its last_seq is ${lastSeq}, its log has ${seqs.join()}.`)];
  });
}

function readersSeeAllOfIt({ ledger, events }: Evidence): Violation[] {
  return ledger.transcripts.flatMap(({ processId, problems, events: read, reading, isOver, at }) => {
    const log = events.get(processId) ?? [];
    const who = `A reader (${reading.transport}, last at ${at})`;
    const differs = read.find((event, index) => !isSameEvent(event, log[index]));
    return [
      ...problems.map((problem) => gap(processId, `${who}: ${problem}`)),
      ...(isOver
        ? []
        : [gap(processId, `${who} came to ${read.at(-1)?.seq ?? 0} of ${log.length} and no further.`)]),
      ...(differs && problems.length === 0
        ? [gap(processId, `${who} was told ${JSON.stringify(differs)}, which is not what the log has.`)]
        : []),
    ];
  });
}

function isSameEvent(told: Record<string, unknown>, row: EventRow | undefined): boolean {
  if (!row) return false;
  const { processId, seq, createdAt, ...payload } = told;
  const isInPlace =
    processId === row.processId && seq === row.seq && createdAt === row.createdAt.toISOString();
  // Character for character; but readers are not sent the line of a raw event unless they ask for it.
  return isInPlace && (row.type === 'raw' || JSON.stringify(payload) === JSON.stringify(row.payload));
}

function aCancelHasOneWinner({ ledger, rows, calls }: Evidence): Violation[] {
  return ledger.cancels.flatMap(({ processId, answer }) => {
    const row = rows.find(({ id }) => id === processId);
    if (!row || !answer) return [];
    const { httpStatus, status, cancelRequestedAt, at } = answer;
    const violations: Violation[] = [];
    if (TERMINAL.has(status) !== (httpStatus === 200) || (httpStatus === 202 && cancelRequestedAt === null))
      violations.push(
        other(
          5,
          processId,
          `A cancel was answered ${httpStatus}, ${status}, cancelRequestedAt ${String(cancelRequestedAt)}.`,
        ),
      );
    const before = new Set(
      calls.filter((call) => call.mark === row.mark && call.at <= at).map(({ launch }) => launch),
    );
    const again = calls.find(
      (call) => call.mark === row.mark && call.at > at + CALL_GRACE_MS && !before.has(call.launch),
    );
    if (again)
      violations.push(other(5, processId, `Cancelled at ${time(at)}, it was begun at ${time(again.at)}.`));
    return violations;
  });
}

function noCliOutlivesItsOwner({ launches, rows, leaseTtlMs, deeds }: Evidence): Violation[] {
  return launches.flatMap(({ id, session, slot, owner, lastSeenAt, isLive, pids }) => {
    const processId = rows.find(({ sessionId }) => sessionId === session)?.id ?? null;
    const leaked = (seen: string): Violation => ({ breach: 'leaked', invariant: 6, processId, seen });
    const who = `CLI ${id} (pids ${[...pids].join()}) of ${slot}`;
    if (isLive) return [leaked(`${who} is still there after everything has come to rest.`)];
    const diedAt = owner.endedAt ?? Infinity;
    // It may have been stopped itself, and then be killed no later for it: SIGKILL does not wait.
    if (lastSeenAt <= diedAt + leaseTtlMs + CLI_GRACE_MS) return [];
    const around = deeds.filter(({ at }) => Math.abs(at - diedAt) < 2000).map(({ what }) => what);
    return [
      leaked(
        `${who} was seen ${lastSeenAt - diedAt} ms after its owner's end (${String(owner.endedBy)}). ${around.join('; ')}`,
      ),
    ];
  });
}

function oneKeyOneProcess({ ledger, rows }: Evidence): Violation[] {
  return ledger.submissions.flatMap(({ submission: { mark, copies }, accepted }) => {
    const ids = [...new Set(accepted.map(({ processId }) => processId))];
    const made = rows.filter((row) => row.mark === mark);
    const [first] = made;
    if (ids.length <= 1 && made.length <= 1) return [];
    const seen = `${mark} (${copies} copies under one key) became ${made.length} processes: ${made.map(({ id }) => id).join()}; answers named ${ids.join()}.`;
    return [{ breach: 'doubled' as const, invariant: 7, processId: first?.id ?? null, seen }];
  });
}

function everybodyIsAnswered({ ledger, unsettled }: Evidence): Violation[] {
  const hanging = ledger.submissions.flatMap(({ submission, open }) =>
    [...open].map((request) => other(8, null, `${submission.mark} was never answered: ${request}.`)),
  );
  const deaf = ledger.cancels
    .filter(({ answer }) => answer === null)
    .map(({ processId }) => other(8, processId, 'Its cancel was never answered.'));
  return [...hanging, ...deaf, ...unsettled.map((what) => other(8, null, what))];
}

function nothingElseGoesWrong({ ledger, problems, strangers, calls, launches }: Evidence): Violation[] {
  const blind =
    calls.length > 0 && launches.length === 0
      ? ['The process table showed no CLI, and the model was asked: the harness is blind.']
      : [];
  const odd = strangers.map((prompt) => `The model was asked what no submission says: ${prompt}`);
  return [...ledger.problems, ...problems, ...odd, ...blind].map((seen) => other(0, null, seen));
}

/** Answers that said that no process was made, where one was: the caller does not know of it. */
export function falseRefusals({
  ledger,
  rows,
}: Evidence): { mark: string; processId: string; told: string }[] {
  return ledger.submissions.flatMap(({ submission: { mark, copies }, refused, accepted }) => {
    const row = rows.find((candidate) => candidate.mark === mark);
    const [refusal] = refused;
    if (copies > 0 || accepted.length > 0 || !row || !refusal) return [];
    return [{ mark, processId: row.id, told: `${refusal.status} ${refusal.code} (${refusal.by})` }];
  });
}

const lost = (invariant: number, processId: string | null, seen: string): Violation => ({
  breach: 'lost',
  invariant,
  processId,
  seen,
});
const other = (invariant: number, processId: string | null, seen: string): Violation => ({
  breach: 'other',
  invariant,
  processId,
  seen,
});
const gap = (processId: string, seen: string): Violation => ({
  breach: 'gap',
  invariant: 4,
  processId,
  seen,
});
const time = (at: number) => new Date(at).toISOString().slice(11, 23);
