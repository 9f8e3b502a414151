import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../messages-api/index.js';
import {
  CliEngine,
  type CliEngineOptions,
  type Ending,
  type EngineEvent,
  type EngineNotice,
  type EngineRequest,
  type RunAbort,
} from './index.js';

/** A CliEngine on the real CLI, before a scripted Messages API. For tests. */
export class EngineBench {
  readonly notices: EngineNotice[] = [];
  readonly engine: CliEngine;

  private constructor(
    readonly api: MessagesApi,
    readonly directory: string,
    options: Partial<CliEngineOptions>,
  ) {
    this.engine = new CliEngine({
      directory,
      anthropic: { baseUrl: api.url, apiKey: 'sk-ant-test' },
      apiMaxRetries: 1,
      onNotice: (notice) => this.notices.push(notice),
      ...options,
    });
  }

  static async open(options: Partial<CliEngineOptions> = {}): Promise<EngineBench> {
    const directory = options.directory ?? (await realpath(await mkdtemp(join(tmpdir(), 'engine-'))));
    return new EngineBench(await startMessagesApi(), directory, options);
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
  begin(request: Partial<EngineRequest>, workspaceKey = 'work'): BenchRun {
    const whole = { prompt: 'hello', permissionMode: 'deny', timeoutMs: 30_000, ...request } as const;
    const abort = new AbortController();
    return new BenchRun(this.engine.run(whole, { signal: abort.signal, workspaceKey }), abort);
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
  ) {}

  abort(reason?: RunAbort): void {
    this.controller.abort(reason);
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

const PATIENCE_MS = 15_000;

/** Resolves as soon as a condition holds that nobody announces. Rejects when it does not within 15 s. */
export async function eventually(isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`It never came about: ${isSo.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
