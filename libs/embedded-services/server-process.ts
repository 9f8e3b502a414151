import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, statSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { identify, type ProcessIdentity } from './os-process.js';

const POLL_MS = 20;
const LOG_LIMIT_BYTES = 16 * 1024 * 1024;

export interface ServerCommand {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly uid?: number;
  readonly gid?: number;
}

/** A server that was started and is not ready yet. */
export interface LaunchedServer {
  readonly identity: ProcessIdentity;
  /** How it ended, once it has. */
  ending(): string | undefined;
  /** What it has logged since this start. */
  log(): string;
  /** From here on it may outlive this process. */
  letGo(): void;
}

/** The server ended before it was ready. */
export class ServerEndedError extends Error {
  override readonly name = 'ServerEndedError';

  constructor(
    message: string,
    readonly log: string,
  ) {
    super(message);
  }
}

/**
 * Starts a server in a process group of its own: a Ctrl-C in the terminal reaches the application first, and the
 * application stops its servers when it has finished with them. Until `letGo()` it ends with this process.
 * @throws ServerEndedError if it is gone at once; Error if there is no such program.
 */
export async function launchServer(
  command: ServerCommand,
  options: { logFile: string; endSignal: NodeJS.Signals },
): Promise<LaunchedServer> {
  const { child, log } = spawnLogged(command, options.logFile);
  let ending: string | undefined;
  const endWithUs = () => child.kill(options.endSignal);
  process.once('exit', endWithUs);
  const letGo = () => {
    process.off('exit', endWithUs);
    child.unref();
  };
  child.once('exit', (code, signal) => {
    ending = signal ?? `exit code ${String(code)}`;
    letGo();
  });
  await once(child, 'spawn').catch((error: unknown) => {
    letGo();
    throw error;
  });
  const identity = child.pid === undefined ? undefined : await identify(child.pid);
  if (!identity) throw new ServerEndedError(`${command.file} ended at once; see ${options.logFile}.`, log());
  return { identity, ending: () => ending, log, letGo };
}

/**
 * Asks until there is an answer.
 * @throws ServerEndedError if the server ended; Error when `timeoutMs` have passed; the signal's reason.
 */
export async function untilReady<T>(options: {
  name: string;
  logFile: string;
  server: LaunchedServer;
  ask: () => Promise<T | undefined>;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}): Promise<T> {
  const { name, logFile, server, signal } = options;
  const deadline = Date.now() + options.timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const answer = await options.ask();
    if (answer !== undefined) return answer;
    const ending = server.ending();
    const log = server.log();
    if (ending !== undefined)
      throw new ServerEndedError(`${name} did not start (${ending}). ${lastLines(log)} See ${logFile}.`, log);
    if (Date.now() > deadline)
      throw new Error(`${name} was not ready within ${options.timeoutMs} ms. See ${logFile}.`);
    await pause(POLL_MS, undefined, { signal });
  }
}

/** A port that was free a moment ago: whoever binds it must be ready to be told that it no longer is. */
export async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function spawnLogged(command: ServerCommand, logFile: string): { child: ChildProcess; log: () => string } {
  const size = statSync(logFile, { throwIfNoEntry: false })?.size ?? 0;
  const isFull = size > LOG_LIMIT_BYTES;
  const descriptor = openSync(logFile, isFull ? 'w' : 'a', 0o600);
  const { file, args, ...as } = command;
  try {
    const child = spawn(file, args, {
      ...as,
      detached: true,
      stdio: ['ignore', descriptor, descriptor],
    });
    return {
      child,
      log: () =>
        readFileSync(logFile)
          .subarray(isFull ? 0 : size)
          .toString('utf8'),
    };
  } finally {
    closeSync(descriptor);
  }
}

function lastLines(log: string): string {
  return log.trim().split('\n').slice(-3).join(' ');
}
