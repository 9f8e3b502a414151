import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { TUNING } from './cli-environment.js';
import { isExecutable } from './cli-path.js';
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

/** A CLI that can be started. */
export interface UsableCli {
  path: string;
  /** What of `TUNING` it is known to start with. */
  tuning: Readonly<Record<string, string>>;
}

/** What a program answers to a question. One that it fails to answer is put again by and by, and nobody waits for that. */
class Question {
  /** Null until there is one. */
  answer: string | null = null;
  private readonly first: Promise<void>;
  private askedAt = 0;

  constructor(
    private readonly ask: () => Promise<string | null>,
    private pauseMs: number,
  ) {
    this.first = this.put();
  }

  /** Waits for the first answer, and not for long. */
  async hear(): Promise<string | null> {
    await within(PATIENCE_MS, this.first);
    if (this.answer === null && performance.now() - this.askedAt > this.pauseMs) {
      this.pauseMs *= 2;
      void this.put();
    }
    return this.answer;
  }

  private async put(): Promise<void> {
    this.askedAt = performance.now();
    const answer = await this.ask().catch(() => null);
    this.answer ??= answer;
  }
}

/** Looks whether there is a CLI, and which. */
export class CliProbe {
  /** Of the program that was used last: its version, as it comes and as it answers where it is tuned. By what tells it from others. */
  private asked: { key: string; plain: Question; tuned: Question } | null = null;

  /**
   * @param home a folder that it may take for its home
   * @param pauseMs until what was not answered is asked again; each time it is twice as long
   */
  constructor(
    private readonly home: string,
    private readonly pauseMs = 60_000,
  ) {}

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

  /**
   * What has answered and has not changed since is not asked again.
   * @throws Error where there is no CLI that can be started, or one that is too old
   */
  async requireUsable(path: string | null): Promise<UsableCli> {
    if (path === null || !(await isExecutable(path)))
      throw new Error(`There is no Claude CLI at ${path ?? 'the place where the Agent SDK would put it'}.`);
    const { mtimeMs, size, ino } = await stat(path);
    const key = `${path} ${mtimeMs} ${size} ${ino}`;
    if (this.asked?.key !== key) {
      const question = (tuning: UsableCli['tuning']) =>
        new Question(() => this.ask(path, tuning), this.pauseMs);
      this.asked = { key, plain: question({}), tuned: question(TUNING) };
    }
    const { plain, tuned } = this.asked;
    const [version, versionTuned] = await Promise.all([plain.hear(), tuned.hear()]);
    const told = version ?? versionTuned;
    // One that does not tell is seen through when it is to run.
    if (told !== null && isTooOld(told)) throw new Error(tooOld(told));
    return { path, tuning: versionTuned === null ? {} : TUNING };
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
