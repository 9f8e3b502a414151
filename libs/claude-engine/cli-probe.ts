import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { TUNING } from './cli-environment.js';
import { within } from './launch-end.js';

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

/** Looks whether there is a CLI, and which. */
export class CliProbe {
  private readonly versions = new Map<string, Promise<string | null>>();
  /** The paths of those that start with `TUNING`. */
  private readonly tunable = new Set<string>();

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
  async requireRecent(path: string): Promise<void> {
    const { mtimeMs, size } = await stat(path);
    const key = `${path} ${mtimeMs} ${size}`;
    if (!this.versions.has(key)) this.tunable.delete(path);
    // One that does not tell is seen through when it is to run.
    const asked = this.versions.get(key) ?? this.ask(path).catch(() => null);
    this.versions.clear();
    this.versions.set(key, asked);
    const version = (await within(PATIENCE_MS, asked)) ? await asked : null;
    if (version !== null && isTooOld(version)) throw new Error(tooOld(version));
  }

  /** What of `TUNING` a CLI is known to start with: nothing, unless it was asked. */
  tuningOf(path: string): Readonly<Record<string, string>> {
    return this.tunable.has(path) ? TUNING : {};
  }

  private async ask(path: string): Promise<string | null> {
    const version = await this.askWith(path, TUNING).catch((error: unknown) => {
      // One that hangs is not waited for twice.
      if ((error as { killed?: boolean }).killed) throw error;
      return null;
    });
    if (version === null) this.tunable.delete(path);
    else this.tunable.add(path);
    return version ?? this.askWith(path, {});
  }

  private async askWith(path: string, more: Readonly<Record<string, string>>): Promise<string | null> {
    const env = { ...more, PATH: '/usr/bin:/bin', HOME: this.home };
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
