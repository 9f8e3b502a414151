import { readdir, readFile } from 'node:fs/promises';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** The variable that marks every process of a launch, whatever session or group it has moved to. */
export const LAUNCH_MARK = 'CLAUDE_RUNNER_LAUNCH';

/** A process that cannot be mistaken for a later one with the same pid. */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks from boot to the start (`/proc/<pid>/stat`); null where there is no /proc. */
  startTime: string | null;
}

/** The process of this pid; null if there is none, or only its corpse. */
export function identifyProcess(pid: number): ProcessIdentity | null {
  const stat = readStat(pid);
  if (stat) return stat.state === 'Z' ? null : { pid, startTime: stat.startTime };
  return process.platform !== 'linux' && exists(pid) ? { pid, startTime: null } : null;
}

/** The process that we are. */
export function thisProcess(): ProcessIdentity {
  return identifyProcess(process.pid) ?? { pid: process.pid, startTime: null };
}

/** Whether this very process still runs. Without /proc a recycled pid cannot be told from the process. */
export function isAlive(known: ProcessIdentity): boolean {
  const found = identifyProcess(known.pid);
  return found !== null && found.startTime === known.startTime;
}

/**
 * Where pids mean what they mean here: host name, boot and pid namespace. Two places of one host name but another rest
 * are the same machine or container before and after a restart.
 */
export function thisPlace(): { host: string; epoch: string } {
  return { host: hostname(), epoch: `${bootId()} ${pidNamespace()}` };
}

/** What tells the processes of a launch from others. */
export interface LaunchMarks {
  id: string;
  groupId: number | null;
  /** When its first process started, where that is known: those that are older need not be looked into. */
  startTime?: string | null | undefined;
}

/** The processes of a launch that are left: of its process group, or marked with its id. Corpses do not count. */
export async function processesOf(launch: LaunchMarks): Promise<number[]> {
  if (process.platform !== 'linux') {
    return launch.groupId !== null && exists(-launch.groupId) ? [-launch.groupId] : [];
  }
  const mark = `${LAUNCH_MARK}=${launch.id}`;
  const names = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    names.map(async (name) => {
      const pid = Number(name);
      const stat = readStat(pid);
      if (!stat || stat.state === 'Z') return null;
      if (launch.groupId !== null && stat.groupId === launch.groupId) return pid;
      const isOlder = Number(stat.startTime) < Number(launch.startTime ?? 0);
      return !isOlder && (await hasVariable(pid, mark)) ? pid : null;
    }),
  );
  return found.filter((pid) => pid !== null);
}

/** Sends a signal to a process, or with a negative pid to its group. False if there is none. */
export function sendSignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function readStat(pid: number): { state: string; groupId: number; startTime: string } | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field, the command's name, may hold blanks and brackets. See proc_pid_stat(5).
    const [state, , groupId, ...rest] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const startTime = rest[16];
    if (state === undefined || groupId === undefined || startTime === undefined) return null;
    return { state, groupId: Number(groupId), startTime };
  } catch {
    return null;
  }
}

async function hasVariable(pid: number, assignment: string): Promise<boolean> {
  try {
    return (await readFile(`/proc/${pid}/environ`, 'latin1')).split('\0').includes(assignment);
  } catch {
    // Gone by now, or another user's.
    return false;
  }
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  } catch {
    return '';
  }
}

function pidNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return '';
  }
}
