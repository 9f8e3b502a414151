import { randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import { describeProcess, endProcess, identify, type ProcessIdentity } from './os-process.js';
import { askRedis, type RedisAnswer } from './redis-answer.js';

const POLL_MS = 50;
const BUSY_PATIENCE_MS = 60_000;
const SILENCE_PATIENCE_MS = 5_000;
/** From being started to having bound its port and written its pid file. */
const APPEARANCE_MS = 1_000;

/** Written before the server starts, so that one whose starter was killed at any moment is found again. */
const RedisStateSchema = z.object({
  port: z.int(),
  password: z.string(),
  isDurable: z.boolean(),
  startedAt: z.iso.datetime(),
});
export type RedisState = z.infer<typeof RedisStateSchema>;

export interface RunningRedis {
  readonly identity: ProcessIdentity;
  readonly state: RedisState;
}

/** `none`: its server may be about to write it. */
type RedisTrace =
  { kind: 'none'; pid?: never } | { kind: 'gone'; pid?: never } | { kind: 'running'; pid: number };

export interface RedisPlace {
  readonly configFile: string;
  readonly pidFile: string;
  readonly stateFile: string;
  readonly logFile: string;
  readonly directory: string;
}

export function redisPlace(directory: string): RedisPlace {
  return {
    directory,
    configFile: join(directory, 'redis.conf'),
    pidFile: join(directory, 'redis.pid'),
    stateFile: join(directory, 'instance.json'),
    logFile: join(directory, 'redis.log'),
  };
}

export async function writeState(place: RedisPlace, state: RedisState): Promise<void> {
  const draft = `${place.stateFile}.${randomBytes(4).toString('hex')}`;
  await writeFile(draft, `${JSON.stringify(state)}\n`, { mode: 0o600 });
  await rename(draft, place.stateFile);
}

/** Redis saves what it must on SIGTERM. */
export function endRedis(identity: ProcessIdentity): Promise<void> {
  return endProcess(identity, [
    { signal: 'SIGTERM', patienceMs: 15_000 },
    { signal: 'SIGKILL', patienceMs: 5_000 },
  ]);
}

/**
 * Takes over the server that an earlier start left running in this directory. One that does not answer, or runs with
 * another durability, is ended, since two on one append-only file would ruin it.
 * @throws Error when a process that may be ours cannot be told from a stranger.
 */
export async function adoptRedis(options: {
  place: RedisPlace;
  isDurable: boolean;
  signal: AbortSignal | undefined;
}): Promise<RunningRedis | undefined> {
  const { place, isDurable, signal } = options;
  const state = await readState(place);
  if (!state) return undefined;
  const trace = await findTrace(place, state);
  const answer = await settle({ state, trace, signal });
  const answersFrom =
    answer.kind === 'ready' && answer.configFile === place.configFile ? answer.pid : undefined;
  const identity = await identify(answersFrom ?? trace.pid ?? 0);
  if (!identity) return undefined;
  if (answersFrom !== undefined && state.isDurable === isDurable) return { identity, state };
  await endRedis(identity);
  return undefined;
}

/** The server's last word: it may be appearing, or reading its data. */
async function settle(server: {
  state: RedisState;
  trace: RedisTrace;
  signal: AbortSignal | undefined;
}): Promise<RedisAnswer> {
  const since = Date.now();
  const silentUntil = {
    none: Date.parse(server.state.startedAt) + APPEARANCE_MS,
    running: since + SILENCE_PATIENCE_MS,
    gone: since,
  };
  for (;;) {
    server.signal?.throwIfAborted();
    const answer = await askRedis(server.state);
    const until = {
      ready: since,
      refused: since,
      busy: since + BUSY_PATIENCE_MS,
      silent: silentUntil[server.trace.kind],
    };
    if (Date.now() >= until[answer.kind]) return answer;
    await pause(POLL_MS, undefined, { signal: server.signal });
  }
}

async function readState(place: RedisPlace): Promise<RedisState | undefined> {
  try {
    return RedisStateSchema.safeParse(JSON.parse(await readFile(place.stateFile, 'utf8'))).data;
  } catch {
    return undefined;
  }
}

/** What the pid file tells: whether its process is still (and not again) a Redis in this directory. Pids are reused. */
async function findTrace(place: RedisPlace, state: RedisState): Promise<RedisTrace> {
  const text = await readFile(place.pidFile, 'utf8').catch(() => undefined);
  if (text === undefined) return { kind: 'none' };
  const pid = Number(text);
  if (!Number.isInteger(pid) || pid <= 0 || !(await identify(pid))) return { kind: 'gone' };
  const description = await describeProcess(pid);
  if (!description)
    throw new Error(
      `Process ${pid} may be a Redis in ${place.directory}, and the system does not tell. ` +
        `End it, or remove ${place.pidFile} if it is something else.`,
    );
  const title = description.command.join(' ');
  const isHere =
    description.workingDirectory === undefined
      ? title.includes(`127.0.0.1:${state.port}`)
      : description.workingDirectory === place.directory;
  const isRedis = /(redis|valkey)-(server|check-rdb)\b/.test(title);
  return isHere && isRedis ? { kind: 'running', pid } : { kind: 'gone' };
}
