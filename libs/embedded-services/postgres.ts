import { mkdir, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { whileLocked } from './directory-lock.js';
import { type EmbeddedService, type EmbeddedServiceOptions } from './embedded-service.js';
import { askPostgres, ensureDatabase, postgresUrl } from './postgres-answer.js';
import { locatePostgres } from './postgres-binaries.js';
import { type PostgresCluster, prepareCluster } from './postgres-cluster.js';
import { adoptPostgres, endPostgres, type RunningPostgres } from './postgres-leftover.js';
import { findFreePort, launchServer, ServerEndedError, untilReady } from './server-process.js';
import { findUnprivilegedLauncher } from './unprivileged.js';

const READY_TIMEOUT_MS = 60_000;
const RETRY_FOR_MS = 10_000;
const RETRY_PAUSE_MS = 100;

/** The port was taken in between, or processes of a killed server have not noticed its end yet. */
const PASSING_TROUBLE =
  /could not bind|could not create any TCP|shared memory block|lock file .* already exists/;

export interface EmbeddedPostgresOptions extends EmbeddedServiceOptions {
  /** Made if need be. Default `claude_runner`. */
  database?: string;
  /** Default 100. */
  maxConnections?: number;
}

interface ServerSettings {
  isDurable: boolean;
  maxConnections: number;
}

interface StartContext {
  cluster: PostgresCluster;
  settings: ServerSettings;
  database: string;
  signal: AbortSignal | undefined;
}

/**
 * Starts the PostgreSQL that npm brought, or takes over the one an earlier start left running in this directory. It
 * outlives this process until `stop()`.
 * @throws Error, for the operator to read, naming what is missing and the ways out.
 */
export function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedService> {
  return startPostgres(options, { allowNamespace: true });
}

/** As `startEmbeddedPostgres`, for root also where it may not make user namespaces. */
export async function startPostgres(
  options: EmbeddedPostgresOptions,
  { allowNamespace }: { allowNamespace: boolean },
): Promise<EmbeddedService> {
  const { durable = true, database = 'claude_runner', maxConnections = 100, signal } = options;
  const onProgress = options.onProgress ?? (() => undefined);
  const binaries = await locatePostgres();
  await mkdir(options.directory, { recursive: true, mode: 0o700 });
  const directory = await realpath(options.directory);
  const launcher = await findUnprivilegedLauncher({ binary: binaries.postgres, directory, allowNamespace });
  return whileLocked(join(directory, 'start.lock'), signal, async () => {
    const cluster = await prepareCluster({ directory, durable, binaries, launcher, onProgress, signal });
    const context = { cluster, settings: { isDurable: durable, maxConnections }, database, signal };
    const running = await adoptOrLaunch(context);
    onProgress(`PostgreSQL on 127.0.0.1:${running.port}${running.adopted ? ' (was already running)' : ''}`);
    return {
      url: postgresUrl({ port: running.port, password: cluster.password }, database),
      port: running.port,
      pid: running.identity.pid,
      adopted: running.adopted,
      stop: () => endPostgres(running.identity),
    };
  });
}

async function adoptOrLaunch(context: StartContext): Promise<RunningPostgres & { adopted: boolean }> {
  const { cluster, settings, signal } = context;
  const deadline = Date.now() + RETRY_FOR_MS;
  for (;;) {
    const left = await adoptPostgres({ ...cluster, settings, signal });
    if (left) {
      await ensureDatabase({ port: left.port, password: cluster.password }, context.database);
      return { ...left, adopted: true };
    }
    try {
      return { ...(await launch(context)), adopted: false };
    } catch (error) {
      const mayPass = error instanceof ServerEndedError && PASSING_TROUBLE.test(error.log);
      if (!mayPass || Date.now() > deadline) throw error;
      await pause(RETRY_PAUSE_MS, undefined, { signal });
    }
  }
}

/** Either a server that is ready and has the database, or none. */
async function launch(context: StartContext): Promise<RunningPostgres> {
  const { cluster, settings, database, signal } = context;
  const port = await findFreePort();
  const args = ['-D', cluster.data, '-p', String(port), ...settingArguments(settings)];
  const command = cluster.launcher.command(cluster.binaries.postgres, args);
  const { logFile, password } = cluster;
  const server = await launchServer(command, { logFile, endSignal: 'SIGQUIT' });
  try {
    const ask = () => isReady({ port, password });
    await untilReady({ name: 'PostgreSQL', logFile, server, ask, timeoutMs: READY_TIMEOUT_MS, signal });
    await ensureDatabase({ port, password }, database);
  } catch (error) {
    await endPostgres(server.identity);
    throw error;
  }
  server.letGo();
  return { identity: server.identity, port };
}

/** @throws Error when the server is there and does not take our password: more patience would not help. */
async function isReady(server: { port: number; password: string }): Promise<true | undefined> {
  const answer = await askPostgres(server);
  if (answer.kind === 'refused')
    throw new Error(`PostgreSQL refuses its own password file: ${answer.reason}.`);
  return answer.kind === 'ready' ? true : undefined;
}

function settingArguments({ isDurable, maxConnections }: ServerSettings): string[] {
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: maxConnections,
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_min_messages: 'warning',
    ...(isDurable ? {} : { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }),
  };
  return Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
}
