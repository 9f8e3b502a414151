import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 100;
const QUIET_POLLS = 3;
const MOST_TICKS = 2;
const PATIENCE_MS = 30_000;

/** The pids of the CLIs of a server, sandboxes included: their home is a launch's folder in its data directory. */
export function clisOf(directory) {
  const prefix = `HOME=${directory}/engine/launches/`;
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) =>
      read(`/proc/${pid}/environ`)
        .split('\0')
        .some((variable) => variable.startsWith(prefix)),
    );
}

/** Resolves when at least so many CLIs of the server are up, and none of them, nor the server, does anything. */
export async function untilQuiet({ directory, pid }, launches) {
  const deadline = performance.now() + PATIENCE_MS;
  let quiet = 0;
  for (let before = -1; quiet < QUIET_POLLS; await sleep(POLL_MS)) {
    const pids = clisOf(directory);
    const ticks = [pid, ...pids].reduce((sum, each) => sum + ticksOf(each), 0);
    const homes = new Set(pids.map((each) => /HOME=([^\0]*)/.exec(read(`/proc/${each}/environ`))?.[1]));
    quiet = homes.size >= launches && Math.abs(ticks - before) <= MOST_TICKS ? quiet + 1 : 0;
    before = ticks;
    if (performance.now() > deadline) throw new Error(`There is no rest, with ${homes.size} CLIs.`);
  }
}

/** Samples the memory of processes (PSS: what is shared counts in parts) until it is told to stop. @returns the peak, in MiB */
export async function peakMemory(pids, until) {
  let isOver = false;
  const over = until.finally(() => (isOver = true));
  let peak = 0;
  while (!isOver) {
    peak = Math.max(
      peak,
      pids().reduce((sum, pid) => sum + pssOf(pid), 0),
    );
    await sleep(POLL_MS / 2);
  }
  await over;
  return peak;
}

export function pssOf(pid) {
  return Number(/^Pss:\s+(\d+)/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0) / 1024;
}

/** Of CPU time, 100 a second. */
function ticksOf(pid) {
  const stat = read(`/proc/${pid}/stat`);
  const [, , , , , , , , , , , user = 0, system = 0] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(user) + Number(system);
}

function read(path) {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
