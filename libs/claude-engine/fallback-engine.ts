import { ApiEngine } from './api-engine.js';
import {
  type ClaudeEngine,
  type EngineHealth,
  type EngineRequest,
  type RunContext,
} from './claude-engine.js';
import { CliEngine, type CliEngineOptions } from './cli-engine.js';
import { type EngineEvent, type FailedEnding } from './engine-event.js';
import { assertPlainName, EngineFolders, type KeptWorkspace } from './engine-folders.js';
import { Upstream } from './upstream.js';

const STALL_MS = 120_000;
const API_MAX_RETRIES = 10;

/**
 * Runs requests on the CLI; where that cannot be started, and has asked nobody, what needs no tools is answered by the
 * Messages API itself. Never after the first event.
 */
export class FallbackEngine implements ClaudeEngine {
  private constructor(
    private readonly cli: CliEngine,
    private readonly api: ApiEngine,
    private readonly folders: EngineFolders,
  ) {}

  /** @throws SandboxUnavailableError */
  static async open(options: CliEngineOptions): Promise<FallbackEngine> {
    const upstream = options.upstream ?? new Upstream(options);
    const { models, defaultModel, onNotice = () => undefined } = options;
    const { stallMs = STALL_MS, apiMaxRetries = API_MAX_RETRIES } = options;
    const api = new ApiEngine({ upstream, models, defaultModel, stallMs, apiMaxRetries, onNotice });
    const cli = await CliEngine.open({ ...options, upstream });
    return new FallbackEngine(cli, api, new EngineFolders(options.directory));
  }

  run(request: EngineRequest, context: RunContext): AsyncIterableIterator<EngineEvent> {
    assertPlainName(context.workspaceKey);
    switch (request.engine) {
      case 'cli':
        return this.cli.run(request, context);
      case 'api':
        return this.api.run(request, context);
      default:
        return this.runOnEither(request, context);
    }
  }

  async probe(): Promise<EngineHealth> {
    return { ...(await this.cli.probe()), hasFallback: true };
  }

  enter(signal: AbortSignal): Promise<(() => void) | null> {
    return this.cli.enter(signal);
  }

  listWorkspaces(): Promise<KeptWorkspace[]> {
    return this.cli.listWorkspaces();
  }

  forgetWorkspace(key: string): Promise<void> {
    return this.cli.forgetWorkspace(key);
  }

  removeWorkspace(key: string): Promise<void> {
    return this.cli.removeWorkspace(key);
  }

  heartbeat(): void {
    this.cli.heartbeat();
  }

  async close(): Promise<void> {
    await this.api.close();
    await this.cli.close();
  }

  private async *runOnEither(
    request: EngineRequest,
    { mayAsk, ...context }: RunContext,
  ): AsyncGenerator<EngineEvent, void, undefined> {
    let asked: Promise<void> | null = null;
    const both = { ...context, mayAsk: () => (asked ??= mayAsk?.() ?? Promise.resolve()) };
    const unstarted = yield* this.runOnCli(request, both);
    if (!unstarted) return;
    const left = request.timeoutMs - unstarted.afterMs;
    const isOurs =
      left > 0 && !context.signal.aborted && !(await this.folders.holdsFiles(context.workspaceKey));
    if (isOurs && (yield* this.runOnApi({ ...request, timeoutMs: left }, both))) return;
    yield { type: 'ended', ending: unstarted.ending };
  }

  /** @returns how it ended, where the CLI could not be started and nothing has been said; null where it has run */
  private async *runOnCli(
    request: EngineRequest,
    context: RunContext,
  ): AsyncGenerator<EngineEvent, { ending: FailedEnding; afterMs: number } | null, undefined> {
    const began = performance.now();
    let ending: FailedEnding | null = null;
    let hasSpoken = false;
    for await (const event of this.cli.run(request, context)) {
      if (!hasSpoken && event.type === 'ended' && isUnstarted(event.ending)) {
        ({ ending } = event);
        continue;
      }
      hasSpoken = true;
      yield event;
    }
    return ending && { ending, afterMs: performance.now() - began };
  }

  /** @returns whether it has run there: what needs tools has not */
  private async *runOnApi(
    request: EngineRequest,
    context: RunContext,
  ): AsyncGenerator<EngineEvent, boolean, undefined> {
    let hasSpoken = false;
    for await (const event of this.api.run(request, context)) {
      if (!hasSpoken && event.type === 'ended' && isUnavailable(event.ending)) return false;
      hasSpoken = true;
      yield event;
    }
    return true;
  }
}

type Ended = Extract<EngineEvent, { type: 'ended' }>['ending'];

const isUnstarted = (ending: Ended): ending is FailedEnding =>
  ending.kind === 'failed' && ending.isUnstarted === true;

const isUnavailable = (ending: Ended) =>
  ending.kind === 'failed' && ending.error.code === 'engine_unavailable' && !ending.isByServer;
