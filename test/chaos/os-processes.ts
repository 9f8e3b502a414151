import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

const TICKS_PER_S = 100; // CLK_TCK is 100 on every Linux that Node runs on

export interface OsProcess {
  pid: number;
  parent: number;
  /** Ticks from boot to its start: with its pid, a name that no other process ever has. */
  startTicks: number;
  /** R, S, D, T (stopped), Z (a corpse) … */
  state: string;
}

export function pids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Null if there is none. */
export function lookAt(pid: number): OsProcess | null {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === null) return null;
  // The second field, the command's name, may hold blanks and brackets. See proc_pid_stat(5).
  const [state, parent, ...rest] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { pid, parent: Number(parent), startTicks: Number(rest[17]), state: state ?? '' };
}

/** In milliseconds since 1970. */
export function bornAt({ startTicks }: OsProcess): number {
  const uptimeS = Number(read('/proc/uptime')?.split(' ')[0]);
  return Date.now() - (uptimeS - startTicks / TICKS_PER_S) * 1000;
}

export function environmentOf(pid: number): string[] {
  return read(`/proc/${pid}/environ`)?.split('\0') ?? [];
}

export function workingDirectoryOf(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return null;
  }
}

export function childrenOf(parent: number): { pid: number; command: string }[] {
  return pids()
    .filter((pid) => lookAt(pid)?.parent === parent)
    .map((pid) => ({ pid, command: commandOf(pid).join(' ') }));
}

/** The program and its arguments. */
export function commandOf(pid: number): string[] {
  return read(`/proc/${pid}/cmdline`)?.split('\0').filter(Boolean) ?? [];
}

/** Whether it runs or could go on; a corpse does not. */
export function isThere(pid: number): boolean {
  const found = lookAt(pid);
  return found !== null && found.state !== 'Z';
}

/** @returns whether there was one */
export function kill(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return null;
  }
}
