import { type CliProbe } from './cli-probe.js';
import { type Conversation } from './conversation.js';
import { Departures } from './departures.js';
import { type LiveLaunch } from './engine-notice.js';
import { KeptSessions } from './kept-sessions.js';
import { type CliSettings, LaunchedCli } from './launched-cli.js';
import { type LaunchRequest, launchRequestOf } from './launch-request.js';
import { type ToolOffer } from './mcp-servers.js';
import { memoryOf } from './process-memory.js';
import { SparePool } from './spare-pool.js';
import { type Transcript } from './transcript.js';

export interface SupplyOptions {
  /** How many runs there are at once, at most; 2 unless told. */
  slots?: number | undefined;
  /** How many CLIs are started ahead, at most as many as there are slots; none unless told. */
  spares?: number | undefined;
  /** 600,000 unless told. */
  spareMaxAgeMs?: number | undefined;
  /** How long a CLI stays with its session after a run; not at all unless told. */
  sessionIdleMs?: number | undefined;
  /**
   * What all CLIs may have of memory before those that do nothing give way. Unless told, there are no more CLIs that run or are
   * kept than slots, and one more with the spares: when all slots are taken, one is at hand for the first that is free.
   */
  memoryBudgetBytes?: number | undefined;
}

interface SupplySettings extends CliSettings {
  cliPath: string | null;
  probe: CliProbe;
  offer: ToolOffer;
  defaultModel: string | undefined;
}

/** The runs of the engine, as far as they matter here. */
export interface Demand {
  /** Of the CLIs that run, whoever has them. */
  clis: () => LaunchedCli[];
  /** Whether somebody waits for a CLI, or for its first word. */
  isAnyoneWaiting: () => boolean;
}

interface CliHome {
  workspaceKey: string;
  transcript?: Transcript | undefined;
}

const SPARE_MAX_AGE_MS = 10 * 60 * 1000;
const TEND_MS = 1000;
/** What a CLI has come to by the time it can be asked. */
const NEW_CLI_BYTES = 160 * 1024 * 1024;

/** CLIs that need not be started any more: spares, and those that sessions have kept. */
export class CliSupply {
  private readonly departures = new Departures();
  private readonly spares: SparePool;
  private readonly kept: KeptSessions;
  private readonly slots: number;
  private readonly memoryBudgetBytes: number | undefined;
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly settings: SupplySettings,
    private readonly demand: Demand,
    options: SupplyOptions,
  ) {
    const { slots = 2, spares = 0, spareMaxAgeMs = SPARE_MAX_AGE_MS, sessionIdleMs = 0 } = options;
    this.slots = slots;
    this.memoryBudgetBytes = options.memoryBudgetBytes;
    this.kept = new KeptSessions(sessionIdleMs, this.departures);
    this.spares = new SparePool(
      {
        count: settings.launcher.canMoveWorkspaces ? Math.min(spares, slots) : 0,
        maxAgeMs: spareMaxAgeMs,
        standing: launchRequestOf({ prompt: '', permissionMode: 'deny', timeoutMs: 0 }, settings),
        start: (request, onLaunched) => this.startSpare(request, onLaunched),
        isAnyoneWaiting: () => this.demand.isAnyoneWaiting(),
        hasPlace: (insteadOf) => this.hasPlaceForOneMore(insteadOf),
      },
      this.departures,
    );
    this.timer = setInterval(() => this.tend(), TEND_MS).unref();
    this.tend();
  }

  /** CLIs that run, and those that sessions have kept. */
  private get occupied(): number {
    return this.demand.clis().length + this.kept.size;
  }

  get figures() {
    return { spares: this.spares.figures, keptSessions: this.kept.figures };
  }

  live(): LiveLaunch[] {
    const sessions = this.kept.sessions.map(({ cli, workspaceKey }) => ({ cli, workspaceKey }));
    const spares = this.spares.clis.map((cli) => ({ cli, workspaceKey: null }));
    return [...sessions, ...spares, ...this.departures.clis].map(({ cli: { launch }, workspaceKey }) => ({
      launchId: launch.id,
      pid: launch.pid,
      workspaceKey,
    }));
  }

  /** What can be done while nobody waits: spares are replaced, what was idle for too long is ended. */
  tend(): void {
    this.kept.tend();
    // Whoever took a spare has not waited for this.
    if (this.memoryBudgetBytes === undefined) while (this.occupied > this.slots && this.kept.evictOne());
    this.spares.tend();
  }

  /** The CLI that a session has kept, where it knows all of the conversation and was started for such requests. */
  takeKept(
    request: LaunchRequest,
    { workspaceKey, transcript }: CliHome,
    promptId: string | undefined,
  ): Promise<LaunchedCli | null> {
    return this.kept.take(workspaceKey, async ({ launchKey, cli, conversation }) => {
      if (launchKey !== request.key || cli.wasAsked(promptId) || !transcript) return false;
      return (await transcript.readMark()) === conversation.mark;
    });
  }

  /** A spare, with its workspace made that of the session, which has none yet. */
  async takeSpare(request: LaunchRequest, { workspaceKey }: CliHome): Promise<LaunchedCli | null> {
    const { folders } = this.settings;
    if (await folders.hasWorkspace(workspaceKey)) return null;
    const spare = this.spares.take(request);
    if (!spare) return null;
    const isHandedOver = folders.handOver(folders.spareWorkspace(spare.folders), workspaceKey);
    if (await isHandedOver.catch(() => false)) return spare;
    await spare.discard();
    return null;
  }

  /** A CLI is started for a conversation that goes on. */
  missKept(): void {
    this.kept.miss();
  }

  /** Has what does nothing give way to a CLI that is about to be started. One that has a spare needs no more than that did. */
  makeRoom(): void {
    if (this.memoryBudgetBytes === undefined) {
      while (this.occupied >= this.slots && this.kept.evictOne());
      while (!this.hasPlaceForOneMore() && this.spares.evictOne());
      return;
    }
    // What is killed is not gone at once: each is taken to have given back what a CLI has.
    let needed = this.usedBytes() + NEW_CLI_BYTES - this.memoryBudgetBytes;
    while (needed > 0 && (this.kept.evictOne() || this.spares.evictOne())) needed -= NEW_CLI_BYTES;
  }

  /** Keeps a CLI that has answered. @returns false where it cannot stay */
  keep(
    cli: LaunchedCli,
    session: { request: LaunchRequest; workspaceKey: string; conversation: Conversation },
  ): boolean {
    const { request, workspaceKey, conversation } = session;
    if (!this.kept.mayKeep || request.key === null || conversation.mark === null) return false;
    if (this.kept.has(workspaceKey) || !cli.isAlone) return false;
    if (this.memoryBudgetBytes !== undefined && this.usedBytes() > this.memoryBudgetBytes) return false;
    cli.leave();
    this.kept.put({ workspaceKey, launchKey: request.key, cli, conversation });
    return true;
  }

  /** Ends the CLI that a session has kept, if it has. */
  forget(workspaceKey: string): Promise<void> {
    return this.kept.forget(workspaceKey);
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    this.kept.close();
    await this.spares.close();
    await this.departures.all();
  }

  private async startSpare(request: LaunchRequest, onLaunched: (cli: LaunchedCli) => void): Promise<boolean> {
    const { cliPath, folders, probe } = this.settings;
    const program = await probe.requireUsable(cliPath);
    const cli = await LaunchedCli.make(this.settings);
    try {
      await cli.prepare(await folders.makeSpareWorkspace(cli.folders));
      await cli.start(program, request);
    } catch (error) {
      this.settings.onNotice({ kind: 'launch_failed', launchId: cli.launch.id, reason: String(error) });
      await cli.discard();
      return false;
    }
    onLaunched(cli);
    return cli.warmUp();
  }

  private hasPlaceForOneMore(insteadOf?: LaunchedCli): boolean {
    if (this.memoryBudgetBytes === undefined) {
      const spares = this.spares.clis.filter((cli) => cli !== insteadOf);
      return this.occupied + spares.length <= this.slots;
    }
    const freedBytes = insteadOf ? bytesOf(insteadOf) : 0;
    return this.usedBytes() - freedBytes + NEW_CLI_BYTES <= this.memoryBudgetBytes;
  }

  private usedBytes(): number {
    const kept = this.kept.sessions.map(({ cli }) => cli);
    return [...this.demand.clis(), ...kept, ...this.spares.clis].reduce((sum, cli) => sum + bytesOf(cli), 0);
  }
}

const bytesOf = ({ launch: { pid } }: LaunchedCli) => (pid === null ? 0 : memoryOf(pid));
