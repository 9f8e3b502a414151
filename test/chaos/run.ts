import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { cancel } from './canceller.js';
import { findProcesses, gatherEvidence, type Evidence } from './evidence.js';
import { falseRefusals, findViolations, type Violation } from './invariants.js';
import { Ledger } from './ledger.js';
import { Reader } from './reader.js';
import { RecoveryClock } from './recovery-clock.js';
import { Saboteur } from './saboteur.js';
import { drawSchedule, type Schedule } from './schedule.js';
import { Submitter } from './submitter.js';
import type { Submission } from './work-schedule.js';
import { heal, useRedis, type World } from './world.js';

const LOOK_MS = 100;
/** Leases run out, what waits is run, and whoever waited is answered. The machine may be busy with other tests. */
const SETTLE_MS = 60_000;
const LEASES_TO_SETTLE = 4;

export interface RunResult {
  evidence: Evidence;
  violations: Violation[];
  falseRefusals: ReturnType<typeof falseRefusals>;
  /** From a worker's kill -9 until its processes show it. */
  recoveryMs: number[];
  /** How long the faults took, the healing, and until everything had come to rest. */
  phasesMs: { chaos: number; heal: number; settle: number };
}

/** One run: what the seed says, against a world that is whole at its begin and healed at its end. */
export async function runChaos(world: World, seed: number): Promise<RunResult> {
  const since = Date.now();
  const schedule = drawSchedule(seed, world.timings);
  await useRedis(world, { durable: schedule.redisIsDurable });
  const clock = new RecoveryClock(world.postgres);
  const saboteur = new Saboteur(world, clock);
  const cast = new Cast(world);
  const began = performance.now();
  const until = (atMs: number) => sleep(Math.max(0, atMs - (performance.now() - began)));

  const faults = schedule.faults.map(async (fault) => {
    await until(fault.atMs);
    await saboteur.commit(fault);
  });
  const submissions = schedule.submissions.map(async (submission) => {
    await until(submission.atMs);
    cast.submit(submission);
  });
  await Promise.all([...faults, ...submissions, until(schedule.durationMs)]);

  const lap = stopwatch(began);
  const chaos = lap();
  const unsettled: string[] = [];
  await heal(world).catch((error: unknown) => unsettled.push(String(error)));
  const healing = lap();
  unsettled.push(...(await settle(world, cast, schedule)));
  const phasesMs = { chaos, heal: healing, settle: lap() };
  cast.leave();
  await clock.stop();
  const evidence = await gatherEvidence(world, {
    schedule,
    ledger: cast.ledger,
    deeds: saboteur.deeds,
    since,
    unsettled,
  });
  return {
    evidence,
    violations: findViolations(evidence),
    falseRefusals: falseRefusals(evidence),
    recoveryMs: clock.timesMs,
    phasesMs,
  };
}

function stopwatch(since: number): () => number {
  let last = since;
  return () => {
    const now = performance.now();
    const lap = Math.round(now - last);
    last = now;
    return lap;
  };
}

/** Those who call: submitters, cancellers and readers. */
class Cast {
  readonly ledger = new Ledger();
  private readonly giveUp = new AbortController();
  /** What is still under way, by name. */
  readonly busy = new Map<Promise<void>, string>();
  private readonly submitter: Submitter;

  constructor(private readonly world: World) {
    setMaxListeners(Infinity, this.giveUp.signal); // everybody listens
    this.submitter = new Submitter(this.terms);
  }

  submit(submission: Submission): void {
    const { mark } = submission;
    this.follow(
      `the submit of ${mark}`,
      this.submitter.submit(submission, (processId) => this.attend(processId, submission)),
    );
  }

  leave(): void {
    this.giveUp.abort();
  }

  private get terms() {
    return { callers: this.world.callers, ledger: this.ledger, giveUp: this.giveUp.signal };
  }

  private attend(processId: string, { mark, readings, cancelAfterMs, api }: Submission): void {
    for (const reading of readings) {
      const reader = sleep(reading.afterMs).then(() => new Reader(this.terms, processId, reading).read());
      this.follow(`a reader of ${mark} (${processId}, ${reading.transport})`, reader);
    }
    if (cancelAfterMs === null) return;
    this.follow(
      `the cancel of ${mark} (${processId})`,
      sleep(cancelAfterMs).then(() => cancel(processId, api, this.terms)),
    );
  }

  private follow(name: string, work: Promise<void>): void {
    const followed = work
      .catch((error: unknown) => void this.ledger.problems.push(`${name} failed: ${String(error)}`))
      .finally(() => this.busy.delete(followed));
    this.busy.set(followed, name);
  }
}

/** Resolves when everything has come to rest. @returns what has not, when that takes too long */
async function settle(world: World, cast: Cast, { seed }: Schedule): Promise<string[]> {
  const deadline = Date.now() + SETTLE_MS + LEASES_TO_SETTLE * world.timings.LEASE_TTL_MS;
  for (;;) {
    const rows = await findProcesses(world.postgres, seed);
    const open = rows.filter(({ finishedAt }) => finishedAt === null);
    world.clis.sample();
    const busy = [...cast.busy.values()];
    if (open.length === 0 && busy.length === 0 && world.clis.live.length === 0) return [];
    if (Date.now() > deadline) {
      const waited = `after ${SETTLE_MS} ms and ${LEASES_TO_SETTLE} leases`;
      return busy.map((what) => `${what} had not come to its end ${waited}.`);
    }
    await sleep(LOOK_MS);
  }
}
