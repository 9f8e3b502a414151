/**
 * The guard's process: see guard.ts. Kept light, and whole from its start on: what it needs when it strikes may not be on the
 * disk any more by then.
 */
import { writeSync } from 'node:fs';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { endLaunch, recordsOf, removeLaunch } from './orphan-reaper.js';
import { isAlive, type ProcessIdentity } from './process-table.js';

/** Its only argument, as JSON. */
export interface GuardOrders {
  launches: string;
  owner: ProcessIdentity;
  silenceMs: number;
}

/** A line that it writes before it kills the CLIs of these launches. */
export interface GuardReport {
  launchIds: string[];
}

const STRIKE_PAUSE_MS = 500;

const { launches, owner, silenceMs } = JSON.parse(process.argv[2] ?? '') as GuardOrders;
let beats = 0;
let isOwnerGone = false;
let silence: NodeJS.Timeout | undefined;

// It ends when its pipe does, whatever else is sent to all of a service's processes at once.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

process.stdin.on('data', () => {
  beats += 1;
  clearTimeout(silence);
  silence = setTimeout(() => void onSilence(beats), silenceMs);
});
process.stdin.on('error', () => undefined);
process.stdin.once('close', () => void onOwnerGone());

async function onSilence(heard: number): Promise<void> {
  for (;;) {
    // If it was us who had no turn, a heartbeat may lie in the pipe.
    await turn();
    if (beats !== heard || isOwnerGone) return;
    await strike();
    await sleep(STRIKE_PAUSE_MS);
  }
}

async function onOwnerGone(): Promise<void> {
  isOwnerGone = true;
  clearTimeout(silence);
  while (!(await strike())) await sleep(STRIKE_PAUSE_MS);
  for (const { folder } of await recordsOf(owner, launches))
    await removeLaunch(folder).catch(() => undefined);
  process.exit();
}

/** Kills whatever runs for the owner. False if something is left even so. */
async function strike(): Promise<boolean> {
  const records = (await recordsOf(owner, launches)).map(({ record }) => record);
  const launchIds = records.filter(({ cli }) => cli && isAlive(cli)).map(({ id }) => id);
  if (launchIds.length > 0) report({ launchIds });
  const ends = await Promise.all(records.map((record) => endLaunch(record)));
  return ends.every(({ left }) => left.length === 0);
}

function report(struck: GuardReport): void {
  try {
    writeSync(1, `${JSON.stringify(struck)}\n`);
  } catch {
    // Nobody is there to read it.
  }
}
