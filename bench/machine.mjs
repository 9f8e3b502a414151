import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const POLL_MS = 100;
const QUIET_POLLS = 3;
const MOST_TICKS = 2;
const PATIENCE_MS = 30_000;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

/** The pids of the CLIs of a server, sandboxes included: their home is a launch's folder in its data directory. */
export function clisOf(directory) {
  const prefix = `HOME=${directory}/engine/launches/`;
  return withVariable((variable) => variable.startsWith(prefix));
}

/** How many CLIs those are: a sandbox is several processes, with one home. */
export function countClisOf(directory) {
  return new Set(clisOf(directory).map(homeOf)).size;
}

/** The pids of a launch: its CLI, its sandbox, and what its tools have started. */
export function processesOf(launch) {
  return withVariable((variable) => variable === `CLAUDE_RUNNER_LAUNCH=${launch}`);
}

/** The pids of programs with this command, whatever their environment says. */
export function programsOf(command) {
  return pids().filter((pid) => read(`/proc/${pid}/cmdline`) === `${command.replaceAll(' ', '\0')}\0`);
}

const pids = () =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);

const withVariable = (isIt) => pids().filter((pid) => read(`/proc/${pid}/environ`).split('\0').some(isIt));

const homeOf = (pid) => /HOME=([^\0]*)/.exec(read(`/proc/${pid}/environ`))?.[1];

/**
 * Resolves when at least so many CLIs of the server are up, and none of them, nor the server, does anything. What was read here
 * to see that is collected by then: otherwise it would be while something is measured, by the process that measures.
 */
export async function untilQuiet({ directory, pid }, launches) {
  const deadline = performance.now() + PATIENCE_MS;
  let quiet = 0;
  for (let before = -1; quiet < QUIET_POLLS; await sleep(POLL_MS)) {
    const clis = clisOf(directory);
    const ticks = [pid, ...clis].reduce((sum, each) => sum + ticksOf(each), 0);
    const homes = new Set(clis.map(homeOf));
    quiet = homes.size >= launches && Math.abs(ticks - before) <= MOST_TICKS ? quiet + 1 : 0;
    before = ticks;
    if (performance.now() > deadline) throw new Error(`There is no rest, with ${homes.size} CLIs.`);
  }
  collectGarbage();
  await sleep(POLL_MS);
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
