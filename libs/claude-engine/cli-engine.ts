import {
  type ClaudeEngine,
  type EngineHealth,
  type EngineRequest,
  type RunContext,
} from './claude-engine.js';
import { type BreakerOptions } from './circuit-breaker.js';
import { type AnthropicAccess, type NetworkAccess } from './cli-environment.js';
import { bundledCliPath } from './cli-path.js';
import { CliProbe } from './cli-probe.js';
import { CliRun, type RunSettings } from './cli-run.js';
import { assertPlainName, EngineFolders, type KeptWorkspace } from './engine-folders.js';
import { type EngineEvent } from './engine-event.js';
import { type EngineNotice, type LiveLaunch, withoutSecrets } from './engine-notice.js';
import { CliSupply, type SupplyOptions } from './cli-supply.js';
import { Guard, type GuardOptions } from './guard.js';
import { type Ladder } from './launch.js';
import { OUTPUT_LIMITS, type OutputLimits } from './output-gate.js';
import { type McpServers, reachableServers, secretsOf, toolNames } from './mcp-servers.js';
import { type ReapedLaunch, reapOrphans } from './orphan-reaper.js';
import { chooseLauncher, type SandboxOptions } from './sandbox.js';
import { Upstream } from './upstream.js';

export interface CliEngineOptions {
  /** The CLI's executable; the one that comes with the Agent SDK unless told. */
  cliPath?: string;
  /** A folder for launches and workspaces, made when it is missing. */
  directory: string;
  anthropic: AnthropicAccess;
  network?: NetworkAccess;
  /** What stands in front of the Messages API. */
  breaker?: BreakerOptions;
  /** The way to the Messages API, where another engine has it too; one of its own unless told. */
  upstream?: Upstream;
  /** `auto` without a network unless told. */
  sandbox?: SandboxOptions;
  /** The models that may be asked, as the Messages API names them; any unless told. */
  models?: readonly string[] | undefined;
  /** The tools that it may offer, of those that the sandbox allows; all of them unless told. */
  tools?: readonly string[] | undefined;
  /** What offers further tools, in every launch; none unless told. Without a sandbox there are none. */
  mcpServers?: McpServers | undefined;
  /** For requests that name no model; the CLI's own default unless told. */
  defaultModel?: string;
  /** How long the CLI may say nothing, unless a tool runs; 120,000 unless told. */
  stallMs?: number;
  /** How often the CLI repeats a failed request to the Messages API; its own default (10, with backoff) unless told. */
  apiMaxRetries?: number;
  /** 2,000 each unless told. */
  ladder?: Partial<Ladder>;
  /** A process beside this one that kills the CLIs when we cannot: see Guard. None unless told. */
  guard?: GuardOptions;
  /** What one run's CLI may say; OUTPUT_LIMITS unless told. */
  outputLimits?: Partial<OutputLimits>;
  /** CLIs that need not be started when a run begins. None unless told. */
  supply?: SupplyOptions;
  /** Told what the operator may want to know. Must not throw. */
  onNotice?: (notice: EngineNotice) => void;
}

const STALL_MS = 120_000;
const LADDER: Ladder = { interruptMs: 2000, termMs: 2000 };

/** Runs each request in a Claude CLI of its own, through the Agent SDK, in a sandbox where there is one. */
export class CliEngine implements ClaudeEngine {
  private readonly settings: RunSettings;
  private readonly runs = new Set<CliRun>();
  private readonly supply: CliSupply;
  private readonly reaping: Promise<unknown>;
  private isClosed = false;

  private constructor(settings: RunSettings, supply: SupplyOptions) {
    this.settings = settings;
    this.supply = new CliSupply(
      settings,
      {
        clis: () => [...this.runs].flatMap(({ cli }) => cli ?? []),
        isAnyoneWaiting: () => [...this.runs].some(({ isWaiting }) => isWaiting),
      },
      supply,
    );
    this.reaping = this.reapOrphans().catch((error: unknown) => {
      this.settings.onNotice({ kind: 'cleanup_failed', launchId: null, reason: String(error) });
    });
  }

  /**
   * Also begins to end what dead servers left in `directory`: see reapOrphans.
   * @throws SandboxUnavailableError
   */
  static async open(options: CliEngineOptions): Promise<CliEngine> {
    const { directory, guard, sandbox = { mode: 'auto', network: 'none' } } = options;
    const { mcpServers: configured = {}, cliPath = bundledCliPath() } = options;
    const onNotice = withoutSecrets(options.onNotice ?? (() => undefined), secretsOf(configured));
    const folders = new EngineFolders(directory);
    const launcher = await chooseLauncher(sandbox, { cliPath, onNotice });
    const { reachable: mcpServers, left } = reachableServers(configured, launcher.containment);
    if (left) onNotice({ kind: 'mcp_servers_left_out', ...left });
    const settings = {
      cliPath,
      folders,
      launcher,
      offer: {
        tools: launcher.tools.filter((name) => options.tools?.includes(name) ?? true),
        mcpServers,
      },
      upstream: options.upstream ?? new Upstream(options),
      probe: new CliProbe(directory),
      models: options.models,
      defaultModel: options.defaultModel,
      apiMaxRetries: options.apiMaxRetries,
      stallMs: options.stallMs ?? STALL_MS,
      outputLimits: { ...OUTPUT_LIMITS, ...options.outputLimits },
      ladder: { ...LADDER, ...options.ladder },
      guard: guard ? new Guard({ ...guard, launches: folders.launches, onNotice }) : null,
      onNotice,
    };
    return new CliEngine(settings, options.supply ?? {});
  }

  run(request: EngineRequest, context: RunContext): AsyncIterableIterator<EngineEvent> {
    assertPlainName(context.workspaceKey);
    const run = new CliRun(request, context, this.settings, this.supply);
    const iterator: AsyncIterableIterator<EngineEvent> = {
      next: async () => {
        this.start(run);
        const result = await run.events.next();
        if (result.done) await run.settled;
        return result;
      },
      return: async () => {
        run.events.close();
        if (!run.isOver) {
          run.stop('abandoned');
          await run.settled;
        }
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  /** Launches whose CLI or folder is not gone yet, spares and those that have answered and are leaving included. */
  liveLaunches(): LiveLaunch[] {
    const running = [...this.runs].map((run) => run.live()).filter((launch) => launch !== null);
    return [...running, ...this.supply.live()];
  }

  /** What probe() tells of them, at once. */
  get supplyFigures(): Pick<EngineHealth, 'spares' | 'keptSessions'> {
    return this.supply.figures;
  }

  /**
   * Ends CLIs whose server died and removes their folders. A living server's are left alone, as are another host's. The
   * engine does this once by itself, when it is made.
   */
  async reapOrphans(): Promise<ReapedLaunch[]> {
    const reaped = await reapOrphans(this.settings.folders.launches);
    for (const { launchId, pids } of reaped) {
      this.settings.onNotice({ kind: 'orphan_reaped', launchId, pids });
    }
    return reaped;
  }

  async probe(): Promise<EngineHealth> {
    const { cliPath: path, launcher, offer, probe } = this.settings;
    const { version, detail } = await probe.look(path);
    const { containment } = launcher;
    return {
      isAvailable: detail === null,
      version,
      path,
      detail,
      containment,
      tools: toolNames(offer),
      hasFallback: false,
      breaker: this.settings.upstream.breaker.state,
      ...this.supplyFigures,
    };
  }

  enter(signal: AbortSignal): Promise<(() => void) | null> {
    return this.settings.upstream.breaker.enter(signal);
  }

  listWorkspaces(): Promise<KeptWorkspace[]> {
    return this.settings.folders.listWorkspaces();
  }

  forgetWorkspace(key: string): Promise<void> {
    return this.supply.forget(key);
  }

  async removeWorkspace(key: string): Promise<void> {
    await this.supply.forget(key);
    await this.settings.folders.removeWorkspace(key);
  }

  heartbeat(): void {
    this.settings.guard?.heartbeat();
  }

  async close(): Promise<void> {
    this.isClosed = true;
    for (const run of this.runs) run.stop('shutdown');
    await Promise.all([this.reaping, this.supply.close(), ...[...this.runs].map((run) => run.settled)]);
    this.settings.upstream.close();
    await this.settings.guard?.close();
  }

  private start(run: CliRun): void {
    if (run.isStarted) return;
    this.runs.add(run);
    if (this.isClosed) run.stop('shutdown');
    run.start();
    void run.settled.finally(() => {
      this.runs.delete(run);
      this.supply.tend();
    });
  }
}
