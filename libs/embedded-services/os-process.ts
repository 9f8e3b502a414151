import { execFile } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const POLL_MS = 20;

/** What servers and tools are started with: no proxy, no secret, no locale of the caller's reaches them. */
export const PLAIN_ENVIRONMENT = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  LC_ALL: 'C',
  TZ: 'UTC',
} as const;

/** A process that cannot be mistaken for another: pids are reused, a pid together with its time of birth is not. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Opaque; comparable on the machine it was taken on, across reboots too. */
  readonly birth: string;
}

export interface ProcessDescription {
  /** The program and its arguments, as far as they can be told apart. */
  readonly command: readonly string[];
  /** The working directory, where the system tells. */
  readonly workingDirectory?: string;
}

/** The process that has this pid now; `undefined` if there is none, or only a zombie. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  if (!pidIsTaken(pid)) return undefined;
  const birth = process.platform === 'linux' ? birthFromProc(pid) : await birthFromPs(pid);
  return birth === undefined ? undefined : { pid, birth };
}

export async function isRunning(identity: ProcessIdentity): Promise<boolean> {
  return (await identify(identity.pid))?.birth === identity.birth;
}

/** Whether the system has this pid in use; a zombie counts. */
export function pidIsTaken(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}

/** `undefined` if the process is gone or the system does not tell. */
export async function describeProcess(pid: number): Promise<ProcessDescription | undefined> {
  if (process.platform !== 'linux') {
    const command = await ps(pid, 'command=');
    return command === undefined ? undefined : { command: command.split(/\s+/) };
  }
  const commandLine = readIfAllowed(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
  if (commandLine === undefined) return undefined;
  const workingDirectory = readIfAllowed(() => readlinkSync(`/proc/${pid}/cwd`));
  const command = commandLine.split('\0').filter((word) => word !== '');
  return workingDirectory === undefined ? { command } : { command, workingDirectory };
}

/**
 * Sends the signals in turn, each when the process has outlived the patience given to the one before.
 * @throws Error when the process outlives them all.
 */
export async function endProcess(
  identity: ProcessIdentity,
  steps: readonly { signal: NodeJS.Signals; patienceMs: number }[],
): Promise<void> {
  for (const { signal, patienceMs } of steps) {
    if (!(await isRunning(identity))) return;
    sendSignal(identity.pid, signal);
    if (await endsWithin(identity, patienceMs)) return;
  }
  throw new Error(`Process ${identity.pid} does not end.`);
}

/** Asked of the shape, not the class: an error may come from another realm. */
export function errorCode(error: unknown): string | undefined {
  const isCoded = typeof error === 'object' && error !== null && 'code' in error;
  return isCoded ? String(error.code) : undefined;
}

async function endsWithin(identity: ProcessIdentity, patienceMs: number): Promise<boolean> {
  const deadline = Date.now() + patienceMs;
  while (await isRunning(identity)) {
    if (Date.now() > deadline) return false;
    await pause(POLL_MS);
  }
  return true;
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (errorCode(error) !== 'ESRCH') throw error;
  }
}

/** Field 22 of /proc/<pid>/stat counts from boot, so the boot belongs to it. The name in field 2 may hold anything. */
function birthFromProc(pid: number): string | undefined {
  const stat = readIfAllowed(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  if (stat === undefined) return undefined;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, ticks] = [fields[0], fields[19]];
  if (state === 'Z' || state === 'X' || ticks === undefined) return undefined;
  const boot = readIfAllowed(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')) ?? '';
  return `${boot.trim()}:${ticks}`;
}

async function birthFromPs(pid: number): Promise<string | undefined> {
  const line = await ps(pid, 'stat=', 'lstart=');
  if (line === undefined || line.startsWith('Z')) return undefined;
  return line.replace(/^\S+\s+/, '');
}

async function ps(pid: number, ...columns: string[]): Promise<string | undefined> {
  const format = columns.flatMap((column) => ['-o', column]);
  const answer = await run('ps', ['-ww', ...format, '-p', String(pid)], { env: PLAIN_ENVIRONMENT }).catch(
    () => undefined,
  );
  const line = answer?.stdout.trim();
  return line === '' ? undefined : line;
}

function readIfAllowed(read: () => string): string | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
