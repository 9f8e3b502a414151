import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, realpath, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { type MessagesApi, startMessagesApi } from '../messages-api/index.js';
import {
  CliEngine,
  type CliEngineOptions,
  type Ending,
  type EngineEvent,
  type EngineNotice,
  type EngineRequest,
  type GuardOptions,
  type LiveLaunch,
  type RunAbort,
  type RunContext,
  type SandboxOptions,
} from './index.js';

/** The key that no CLI may ever see. */
export const KEY = 'sk-ant-test';

export const NO_SANDBOX: SandboxOptions = { mode: 'off', network: 'none' };

/** Where there can be one, there is one: see test/support/services.mjs, which brings bubblewrap. */
export const SANDBOX: SandboxOptions =
  process.platform === 'linux'
    ? { mode: 'required', network: 'none', bwrapPath: process.env.TEST_BWRAP_PATH }
    : NO_SANDBOX;

/** A prompt that has the CLI run this, and tell what came of it. */
export const bash = (command: string) => `[[tool Bash ${JSON.stringify({ command })}]]`;

/** Makes folders in one another, with names so long that soon no path leads to the next. */
export async function makeDeep(folder: string, depth: number): Promise<void> {
  let inner: string | null = null;
  for (let n = 0; n < depth; n += 1) {
    const outer: string = join(folder, `folder-${n}`);
    await mkdir(outer);
    if (inner !== null) await rename(inner, join(outer, 'x'.repeat(200)));
    inner = outer;
  }
}

/** A CliEngine on the real CLI, before a scripted Messages API. For tests. */
export class EngineBench {
  private constructor(
    readonly api: MessagesApi,
    readonly directory: string,
    readonly engine: CliEngine,
    readonly notices: readonly EngineNotice[],
  ) {}

  static async open(options: Partial<CliEngineOptions> = {}): Promise<EngineBench> {
    const directory = options.directory ?? (await realpath(await mkdtemp(join(tmpdir(), 'engine-'))));
    const api = await startMessagesApi();
    const notices: EngineNotice[] = [];
    const engine = await CliEngine.open({
      directory,
      anthropic: { baseUrl: api.url, apiKey: KEY },
      sandbox: SANDBOX,
      apiMaxRetries: 1,
      breaker: { failures: 1000 },
      onNotice: (notice) => notices.push(notice),
      ...options,
    });
    return new EngineBench(api, directory, engine, notices);
  }

  async close(): Promise<void> {
    await this.engine.close();
    await this.api.close();
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  workspace(key = 'work'): string {
    return join(this.directory, 'workspaces', key);
  }

  /** Begins a run; nothing happens before its first event is asked for. */
  begin(request: Partial<EngineRequest>, workspaceKey = 'work', more: Partial<RunContext> = {}): BenchRun {
    const whole = { prompt: 'hello', permissionMode: 'deny', timeoutMs: 60_000, ...request } as const;
    const [abort, killer] = [new AbortController(), new AbortController()];
    const context = { ...more, signal: abort.signal, kill: killer.signal, workspaceKey };
    return new BenchRun(this.engine.run(whole, context), abort, killer);
  }

  /** Runs a request to its end. */
  async run(request: Partial<EngineRequest>, workspaceKey?: string): Promise<BenchRun> {
    const run = this.begin(request, workspaceKey);
    await run.ending();
    return run;
  }

  /** Resolves when no CLI is left, those included that have answered and are leaving. */
  allGone(): Promise<void> {
    return eventually(() => this.engine.liveLaunches().length === 0);
  }

  pids(): number[] {
    return this.engine.liveLaunches().flatMap(({ pid }) => pid ?? []);
  }
}

export class BenchRun {
  readonly events: EngineEvent[] = [];

  constructor(
    readonly iterator: AsyncIterableIterator<EngineEvent>,
    private readonly controller: AbortController,
    private readonly killer = new AbortController(),
  ) {}

  abort(reason?: RunAbort): void {
    this.controller.abort(reason);
  }

  kill(): void {
    this.killer.abort();
  }

  /** Reads on until there is an event of this type. */
  async until<T extends EngineEvent['type']>(type: T): Promise<Extract<EngineEvent, { type: T }>> {
    for (;;) {
      const step = await this.iterator.next();
      if (step.done) throw new Error(`No ${type} among ${this.events.map((event) => event.type).join()}.`);
      this.events.push(step.value);
      if (isOfType(step.value, type)) return step.value;
    }
  }

  async ending(): Promise<Ending> {
    const ended = this.all('ended')[0] ?? (await this.until('ended'));
    return ended.ending;
  }

  all<T extends EngineEvent['type']>(type: T): Extract<EngineEvent, { type: T }>[] {
    return this.events.filter((event) => isOfType(event, type));
  }

  /** The text deltas, joined. */
  text(): string {
    return this.all('text')
      .map(({ text }) => text)
      .join('');
  }
}

function isOfType<T extends EngineEvent['type']>(
  event: EngineEvent,
  type: T,
): event is Extract<EngineEvent, { type: T }> {
  return event.type === type;
}

export interface WorkerProcess {
  pid: number;
  launchId: string;
  /** Of its CLI. */
  cliPid: number;
  /** Its next line: what its engine noticed, or how its run ended. */
  nextLine: () => Promise<string>;
  /** To all of its process group. Resolves when it has exited. */
  kill: (signal: NodeJS.Signals) => Promise<void>;
}

/** A process that runs the built engine: it has begun a run that hangs, and says ten times a second that it is well. */
export async function startWorker(options: {
  directory: string;
  baseUrl: string;
  prompt?: string;
  guard?: GuardOptions;
  sandbox?: SandboxOptions;
}): Promise<WorkerProcess> {
  const engine = pathToFileURL(resolve('dist/libs/claude-engine/index.js')).href;
  const told = JSON.stringify({ prompt: '[[hang]]', sandbox: SANDBOX, ...options });
  const args = ['--input-type=module', '-e', WORKER, engine, told];
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const nextLine = async () => String((await lines.next()).value);
  const { launchId, pid: cliPid } = JSON.parse(await nextLine()) as LiveLaunch;
  const pid = child.pid ?? 0;
  const kill = async (signal: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-pid, signal);
    await exited;
  };
  return { pid, launchId, cliPid: cliPid ?? 0, nextLine, kill };
}

const WORKER = `
const { CliEngine } = await import(process.argv[1]);
const { baseUrl, prompt, ...options } = JSON.parse(process.argv[2]);
const say = (fact) => console.log(JSON.stringify(fact));
const engine = await CliEngine.open({
  ...options, anthropic: { baseUrl, apiKey: 'k' }, onNotice: (notice) => notice.kind.startsWith('guard') && say(notice),
});
setInterval(() => engine.heartbeat(), 100);
const request = { prompt, permissionMode: 'deny', allowedTools: ['Bash'], timeoutMs: 600000 };
for await (const event of engine.run(request, { signal: new AbortController().signal, workspaceKey: 'w' })) {
  if (event.type === 'started') say(engine.liveLaunches()[0]);
  if (event.type === 'ended') say(event);
}
`;

const PATIENCE_MS = 45_000;

/** Resolves as soon as a condition holds that nobody announces. Rejects when it does not in time. */
export async function eventually(isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`It never came about: ${isSo.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
