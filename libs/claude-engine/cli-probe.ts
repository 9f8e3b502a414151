import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { TUNING } from './cli-environment.js';

/** The one that everything here was seen to work with. An older one may not know what keeps a prompt from being obeyed. */
const OLDEST_CLI = '2.1.330';
const TIMEOUT_MS = 10_000;
/** A run does not wait longer to be told. */
const PATIENCE_MS = 1000;

const runFile = promisify(execFile);

interface CliState {
  /** Such as `2.1.330`. */
  version: string | null;
  /** Why it cannot be used, for the operator; null where it can. */
  detail: string | null;
}

/** A CLI that can be started. */
export interface UsableCli {
  path: string;
  /** What of `TUNING` it is known to start with. */
  tuning: Readonly<Record<string, string>>;
}

interface Asked {
  version: Promise<string | null>;
  /** Null: to be asked again. */
  startsTuned: Promise<boolean> | null;
}

/** Looks whether there is a CLI, and which. */
export class CliProbe {
  /** What the program has told that was used last, by what tells it from another. */
  private readonly told = new Map<string, Asked>();

  /** @param home a folder that it may take for its home */
  constructor(private readonly home: string) {}

  async look(path: string | null): Promise<CliState> {
    if (path === null) return { version: null, detail: 'No CLI for this platform is installed.' };
    try {
      const version = await this.ask(path);
      if (version === null) return { version, detail: 'It does not tell its version.' };
      return { version, detail: isTooOld(version) ? tooOld(version) : null };
    } catch (error) {
      return { version: null, detail: String(error) };
    }
  }

  /** What has not changed since is not asked again. @throws Error for a CLI that is too old */
  async requireRecent(path: string): Promise<UsableCli> {
    const { mtimeMs, size, ino } = await stat(path);
    const key = `${path} ${mtimeMs} ${size} ${ino}`;
    // One that does not tell is seen through when it is to run.
    const asked = this.told.get(key) ?? { version: this.ask(path).catch(() => null), startsTuned: null };
    this.told.clear();
    this.told.set(key, asked);
    const startsTuned = (asked.startsTuned ??= this.askTuned(path).catch(() => false));
    const patience = sleep(PATIENCE_MS, null, { ref: false });
    const version = await Promise.race([asked.version, patience]);
    if (version !== null && isTooOld(version)) throw new Error(tooOld(version));
    const isTuned = await Promise.race([startsTuned, patience]);
    // It may have failed for a reason of the moment.
    if (isTuned === false) asked.startsTuned = null;
    return { path, tuning: isTuned ? TUNING : {} };
  }

  private async askTuned(path: string): Promise<boolean> {
    return (await this.ask(path, TUNING)) !== null;
  }

  private async ask(path: string, tuning: UsableCli['tuning'] = {}): Promise<string | null> {
    const env = { ...tuning, PATH: '/usr/bin:/bin', HOME: this.home };
    const { stdout } = await runFile(path, ['--version'], {
      env,
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    return /\d+\.\d+\.\d+\S*/.exec(stdout)?.[0] ?? null;
  }
}

const tooOld = (version: string) => `Version ${version} is too old: it must be ${OLDEST_CLI} or newer.`;

function isTooOld(version: string): boolean {
  const [given, oldest] = [numbersOf(version), numbersOf(OLDEST_CLI)];
  const index = oldest.findIndex((number, at) => given[at] !== number);
  return index >= 0 && (given[index] ?? 0) < (oldest[index] ?? 0);
}

const numbersOf = (version: string) =>
  version
    .split('.')
    .slice(0, 3)
    .map((part) => Number.parseInt(part, 10));
