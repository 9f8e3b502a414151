import { readFile, realpath, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describeProcess, endProcess, identify, pidIsTaken, type ProcessIdentity } from './os-process.js';
import { askPostgres, type PostgresAnswer } from './postgres-answer.js';

const POLL_MS = 50;
const BUSY_PATIENCE_MS = 60_000;
const SILENCE_PATIENCE_MS = 5_000;

export interface RunningPostgres {
  readonly identity: ProcessIdentity;
  readonly port: number;
}

/** Fast shutdown; immediate if that hangs; no more politeness after that. */
export function endPostgres(identity: ProcessIdentity): Promise<void> {
  return endProcess(identity, [
    { signal: 'SIGINT', patienceMs: 10_000 },
    { signal: 'SIGQUIT', patienceMs: 5_000 },
    { signal: 'SIGKILL', patienceMs: 5_000 },
  ]);
}

/**
 * Takes over the server that an earlier start left running on this data directory. One that does not answer, or runs
 * with other settings, is ended; a pid file that belongs to no server of ours is cleared away, since PostgreSQL takes
 * any living process with that pid for one.
 * @throws Error when a process that may be ours cannot be told from a stranger.
 */
export async function adoptPostgres(options: {
  data: string;
  password: string;
  settings: { isDurable: boolean; maxConnections: number };
  signal: AbortSignal | undefined;
}): Promise<RunningPostgres | undefined> {
  const left = await readPidFile(options.data);
  if (!left) return undefined;
  const identity = await identify(left.pid);
  if (!identity || !(await isPostmasterOf(options.data, identity.pid))) {
    // Left alone when nobody has the pid: PostgreSQL then sees for itself whether any of its old processes lives on.
    if (pidIsTaken(left.pid)) await rm(left.file, { force: true });
    return undefined;
  }
  const answer = await settle({ ...options, identity, port: left.port });
  if (answer?.kind === 'ready' && fits(answer, options)) return { identity, port: left.port };
  await endPostgres(identity);
  return undefined;
}

function fits(
  { facts }: Extract<PostgresAnswer, { kind: 'ready' }>,
  { data, settings }: { data: string; settings: { isDurable: boolean; maxConnections: number } },
): boolean {
  return (
    facts.directory === data &&
    facts.isDurable === settings.isDurable &&
    facts.maxConnections === settings.maxConnections
  );
}

/** The server's last word: it may be starting, recovering or on its way out. `undefined`: it has ended. */
async function settle(server: {
  identity: ProcessIdentity;
  port: number;
  password: string;
  signal: AbortSignal | undefined;
}): Promise<PostgresAnswer | undefined> {
  const since = Date.now();
  while (await identify(server.identity.pid)) {
    server.signal?.throwIfAborted();
    const answer = await askPostgres(server);
    const patienceMs = { ready: 0, refused: 0, busy: BUSY_PATIENCE_MS, silent: SILENCE_PATIENCE_MS };
    if (Date.now() - since >= patienceMs[answer.kind]) return answer;
    await pause(POLL_MS, undefined, { signal: server.signal });
  }
  return undefined;
}

/** Line 1 is the postmaster's pid, line 4 its port. A file that says neither was cut short and is removed. */
async function readPidFile(data: string): Promise<{ file: string; pid: number; port: number } | undefined> {
  const file = join(data, 'postmaster.pid');
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const lines = text.split('\n');
  const [pid, port] = [Number(lines[0]), Number(lines[3] ?? 0)];
  if (Number.isInteger(pid) && pid > 0) return { file, pid, port };
  await rm(file, { force: true });
  return undefined;
}

async function isPostmasterOf(data: string, pid: number): Promise<boolean> {
  const description = await describeProcess(pid);
  if (!description) {
    if (!(await identify(pid))) return false;
    throw new Error(
      `Process ${pid} may be a PostgreSQL on ${data}, and the system does not tell. ` +
        `End it, or remove ${join(data, 'postmaster.pid')} if it is something else.`,
    );
  }
  const { command, workingDirectory } = description;
  if (basename(command[0] ?? '') !== 'postgres') return false;
  if (workingDirectory === data) return true;
  const named = command[command.indexOf('-D') + 1];
  return named !== undefined && (await realpath(named).catch(() => named)) === data;
}
