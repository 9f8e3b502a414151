import {
  type Options,
  type Query,
  query,
  type SDKMessage,
  type SDKSystemMessage,
} from '@anthropic-ai/claude-agent-sdk';
import { randomUUID } from 'node:crypto';
import { cliEnvironment } from './cli-environment.js';
import { type UsableCli } from './cli-probe.js';
import { type EngineFolders, type LaunchFolders } from './engine-folders.js';
import { type Usage } from './engine-event.js';
import { type EngineNotice } from './engine-notice.js';
import { type Ladder, Launch } from './launch.js';
import { type LaunchRequest } from './launch-request.js';
import { type Launcher, type LaunchSite } from './launcher.js';
import { NO_USAGE, usageSince } from './open-message.js';
import { OutputGate, type OutputLimits, type OutputReader } from './output-gate.js';
import { familyOf } from './process-memory.js';
import { PromptInput, type Question } from './prompt-input.js';
import { RunningTotals } from './running-totals.js';
import { type MirrorTarget, TranscriptMirror } from './transcript-mirror.js';
import { type Upstream } from './upstream.js';

export interface CliSettings {
  folders: EngineFolders;
  launcher: Launcher;
  upstream: Upstream;
  models: readonly string[] | undefined;
  apiMaxRetries: number | undefined;
  ladder: Ladder;
  outputLimits: OutputLimits;
  onNotice: (notice: EngineNotice) => void;
}

/** bwrap, its child that is the first process inside, and the CLI. */
const SANDBOXED_CLI = 3;
/** That a CLI is believed to have. */
const MOST_SERVERS = 64;

/** Who is answered by a CLI for now. What the CLI keeps of the conversation goes there as well. */
export interface Occupant extends OutputReader, MirrorTarget {
  /** Whether the model may be asked for it; what the CLI asks waits for the answer. */
  mayAsk(): Promise<boolean>;
  /** Takes a line. The next one waits until this resolves. */
  see(line: SDKMessage): Promise<void>;
}

/**
 * A CLI from before its start to its end, whoever it answers: one run, or several of a conversation, one after the other.
 * Between two occupants it may not ask the model anything.
 */
export class LaunchedCli {
  readonly launch: Launch;
  /** Why its lines broke off, where they did. */
  breakage: string | null = null;
  /** Resolves when there are no more lines. */
  private reading: Promise<void> = Promise.resolve();
  private occupant: Occupant | null = null;
  private conversation: Query | null = null;
  private site: LaunchSite | null = null;
  private token = '';
  private readonly input = new PromptInput();
  private readonly mirror = new TranscriptMirror();
  private readonly totals = new RunningTotals();
  private readonly asked = new Set<string>();
  /** The processes there were when it began to answer: MCP servers stay as long as it does. Null before. */
  private household: ReadonlySet<number> | null = null;
  private readonly gate: OutputGate;
  /** What the launch had asked and used when its occupant entered. */
  private before = { requests: 0, usage: NO_USAGE };

  private constructor(
    id: string,
    readonly folders: LaunchFolders,
    private readonly settings: CliSettings,
  ) {
    const mayAsk = async () => (await this.occupant?.mayAsk()) ?? false;
    this.launch = new Launch({ ...settings, id, folders, mayAsk });
    // Nobody has asked it anything that it could have so much to say to.
    this.gate = new OutputGate(settings.outputLimits, () => this.launch.kill());
  }

  /** Makes its folders; nothing runs yet. */
  static async make(settings: CliSettings): Promise<LaunchedCli> {
    const id = randomUUID();
    const folders = await settings.folders.makeLaunch(id);
    return new LaunchedCli(id, folders, settings);
  }

  /** Makes the place where it is to stand. @param workspace its real path */
  async prepare(workspace: string): Promise<void> {
    ({ site: this.site, token: this.token } = await this.launch.prepare(workspace));
  }

  /** Starts it at the place that is prepared. */
  async start(
    { path, tuning }: UsableCli,
    request: LaunchRequest,
    more: { options?: Options; environment?: Record<string, string> } = {},
  ): Promise<void> {
    const { site } = this;
    if (!site) throw new Error('The CLI has no place to stand yet.');
    const options = await request.options(site.workspace);
    this.conversation = query({
      prompt: this.input.messages(),
      options: {
        ...more.options,
        ...options,
        sessionStore: this.mirror.store,
        sessionStoreFlush: 'eager',
        pathToClaudeCodeExecutable: path,
        env: {
          ...cliEnvironment({
            id: this.launch.id,
            configFolder: this.folders.config,
            site: site.environment,
            token: this.token,
            tuning,
            apiMaxRetries: this.settings.apiMaxRetries,
          }),
          ...more.environment,
        },
        spawnClaudeCodeProcess: (command) => this.gate.before(this.launch.spawn(site, command)),
      },
    });
    this.reading = this.read(this.conversation);
  }

  /** Waits until it is up, and has it put together what it would send. @returns whether it did come up */
  async warmUp(): Promise<boolean> {
    try {
      await this.conversation?.initializationResult();
      // The summary asks the API nothing.
      await this.conversation?.getContextUsage({ detail: 'summary' });
      return true;
    } catch {
      return false;
    }
  }

  /** Whether the Messages API was asked anything for its occupant. */
  get hasAsked(): boolean {
    return this.launch.requestCount > this.before.requests;
  }

  /** The tokens that the Messages API says it has used for its occupant, by whatever asked for them in its place. */
  get usage(): Usage {
    return usageSince(this.before.usage, this.launch.usage ?? NO_USAGE);
  }

  /** Whether it was asked this before: it would not answer again. */
  wasAsked(promptId: string | undefined): boolean {
    return promptId !== undefined && this.asked.has(promptId);
  }

  /** Whether nothing runs beside it but its MCP servers: what a tool has left behind ends with the run that left it. */
  get isAlone(): boolean {
    const { pid } = this.launch;
    if (pid === null) return false;
    const family = familyOf(pid);
    return family.length <= SANDBOXED_CLI || family.every((member) => this.household?.has(member) ?? false);
  }

  /** Resolves when it has said its last. */
  get ended(): Promise<void> {
    return this.reading;
  }

  /** Resolves when it has exited, or was never started. */
  get gone(): Promise<unknown> {
    return Promise.race([this.launch.exited, this.reading]);
  }

  /** Its lines and its record go there from now on, and it asks the model when its occupant may. */
  enter(occupant: Occupant): void {
    this.occupant = occupant;
    this.before = { requests: this.launch.requestCount, usage: this.launch.usage ?? NO_USAGE };
    this.totals.beginAnew();
    this.gate.turnTo(occupant);
    this.mirror.connect(occupant);
  }

  ask(question: Question): void {
    if (question.uuid !== undefined) this.asked.add(question.uuid);
    this.input.ask(question);
  }

  leave(): void {
    this.mirror.connect(null);
    this.gate.turnTo(null);
    this.occupant = null;
  }

  /** It is asked nothing more, but can still be interrupted. */
  silence(): void {
    this.input.silence();
  }

  /** Nothing that it says is let through to its occupant any more. */
  shut(): void {
    this.gate.shut();
  }

  /** The end of what it is asked: it leaves when it has answered. */
  closeInput(): void {
    this.input.close();
  }

  /** Stops what it is at; it goes on with what else it was asked. */
  async stopTurn(): Promise<void> {
    await this.conversation?.interrupt();
  }

  /** Stops what it is at, and takes back what else it was asked. */
  async interrupt(): Promise<void> {
    // Not in the Agent SDK's types (0.3.330): the CLI would go on with what it was told further.
    const interruptible: { interrupt: (options: { cancelQueued: true }) => Promise<unknown> } | null =
      this.conversation;
    await interruptible?.interrupt({ cancelQueued: true });
  }

  /** After its end: lets go of what is left of it here, and deletes its folders. */
  async remove(): Promise<void> {
    this.input.close();
    this.conversation?.close();
    await this.launch.remove();
  }

  /** Ends it at once, whatever it does. Resolves when nothing of it is left. */
  async discard(): Promise<void> {
    this.launch.kill();
    await this.launch.end();
    await this.remove();
  }

  /** Takes its lines until there are no more, or none can be read. */
  private async read(conversation: Query): Promise<void> {
    try {
      for await (const line of conversation) {
        if (this.household === null && line.type === 'system' && line.subtype === 'init')
          this.lookAround(line);
        await this.occupant?.see(this.totals.since(line));
      }
    } catch (error) {
      this.breakage = String(error);
    }
  }

  /** When it begins to answer for the first time: no tool has run yet. */
  private lookAround({ mcp_servers: servers }: SDKSystemMessage): void {
    const { pid, id: launchId } = this.launch;
    const hasServers = servers.length > 0 && pid !== null;
    this.household = new Set(hasServers ? familyOf(pid) : []);
    for (const { name: server, status } of servers.slice(0, MOST_SERVERS))
      if (status !== 'connected')
        this.settings.onNotice({ kind: 'mcp_server_failed', launchId, server, status });
  }
}
