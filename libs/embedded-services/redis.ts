import { randomBytes } from 'node:crypto';
import { mkdir, realpath, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { whileLocked } from './directory-lock.js';
import { type EmbeddedService, type EmbeddedServiceOptions } from './embedded-service.js';
import { askRedis, redisUrl } from './redis-answer.js';
import { findRedisBinary, type RedisBinary } from './redis-binary.js';
import {
  adoptRedis,
  endRedis,
  type RedisPlace,
  redisPlace,
  type RedisState,
  type RunningRedis,
  writeState,
} from './redis-leftover.js';
import { findFreePort, launchServer, ServerEndedError, untilReady } from './server-process.js';

const READY_TIMEOUT_MS = 60_000;
const LAUNCH_ATTEMPTS = 3;

export interface EmbeddedRedisOptions extends EmbeddedServiceOptions {
  /** Where an unpacked distribution package is kept; data directories may share it. Default: inside `directory`. */
  cacheDirectory?: string;
  /** Where to look for an installed server, in PATH's form. Default: the places systems usually have it in. */
  searchPath?: string;
}

interface StartContext {
  place: RedisPlace;
  isDurable: boolean;
  signal: AbortSignal | undefined;
}

/**
 * Starts the Redis or Valkey of this machine (or of its distribution, fetched once and unpacked privately), or takes
 * over the one an earlier start left running in this directory. It outlives this process until `stop()`.
 * @throws Error, for the operator to read, naming what is missing and the ways out.
 */
export async function startEmbeddedRedis(options: EmbeddedRedisOptions): Promise<EmbeddedService> {
  const { durable = true, searchPath, signal } = options;
  const onProgress = options.onProgress ?? (() => undefined);
  await mkdir(options.directory, { recursive: true, mode: 0o700 });
  const directory = await realpath(options.directory);
  const cacheDirectory = resolve(options.cacheDirectory ?? join(directory, 'distribution'));
  return whileLocked(join(directory, 'start.lock'), signal, async () => {
    const context = { place: redisPlace(directory), isDurable: durable, signal };
    const left = await adoptRedis(context);
    const running =
      left ??
      (await launch(context, await findRedisBinary({ cacheDirectory, searchPath, onProgress, signal })));
    const adopted = left !== undefined;
    const { identity, state } = running;
    onProgress(`Redis on 127.0.0.1:${state.port}${adopted ? ' (was already running)' : ''}`);
    const stop = () => stopRedis(running, context.place);
    return { url: redisUrl(state), port: state.port, pid: identity.pid, adopted, stop };
  });
}

async function stopRedis({ identity }: RunningRedis, place: RedisPlace): Promise<void> {
  await endRedis(identity);
  await rm(place.stateFile, { force: true });
}

async function launch(context: StartContext, binary: RedisBinary): Promise<RunningRedis> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await launchOnce(context, binary);
    } catch (error) {
      const portWasTaken = error instanceof ServerEndedError && /already in use|listen/i.test(error.log);
      if (!portWasTaken || attempt === LAUNCH_ATTEMPTS) throw error;
    }
  }
}

/** Either a server that is ready, or none. */
async function launchOnce(
  { place, isDurable, signal }: StartContext,
  binary: RedisBinary,
): Promise<RunningRedis> {
  const state: RedisState = {
    port: await findFreePort(),
    password: randomBytes(24).toString('base64url'),
    isDurable,
    startedAt: new Date().toISOString(),
  };
  await writeFile(place.configFile, configurationOf(place, state), { mode: 0o600 });
  await rm(place.pidFile, { force: true });
  await writeState(place, state);
  // Redis stops on arm64 for a kernel bug that it cannot tell is fixed
  const warnings = process.arch === 'arm64' ? ['--ignore-warnings', 'ARM64-COW-BUG'] : [];
  const command = { ...binary, args: [place.configFile, ...warnings] };
  const { logFile } = place;
  const server = await launchServer(command, { logFile, endSignal: 'SIGTERM' });
  try {
    const ask = () => isReady(state, server.identity.pid);
    await untilReady({ name: 'Redis', logFile, server, ask, timeoutMs: READY_TIMEOUT_MS, signal });
  } catch (error) {
    await stopRedis({ identity: server.identity, state }, place);
    throw error;
  }
  server.letGo();
  return { identity: server.identity, state };
}

async function isReady(state: RedisState, pid: number): Promise<true | undefined> {
  const answer = await askRedis(state);
  return answer.kind === 'ready' && answer.pid === pid ? true : undefined;
}

/** In a file that only its owner may read: a password on the command line is everybody's. */
function configurationOf(
  { directory, pidFile }: RedisPlace,
  { port, password, isDurable }: RedisState,
): string {
  const lines = [
    'bind 127.0.0.1',
    `port ${port}`,
    `requirepass ${password}`,
    `dir ${quote(directory)}`,
    `pidfile ${quote(pidFile)}`,
    'daemonize no',
    'maxmemory-policy noeviction',
    'save ""',
    ...(isDurable ? ['appendonly yes', 'appendfsync everysec'] : ['appendonly no']),
  ];
  return `${lines.join('\n')}\n`;
}

function quote(path: string): string {
  return `"${path.replace(/["\\]/g, '\\$&')}"`;
}
