import { type CanUseTool, type Query, query } from '@anthropic-ai/claude-agent-sdk';
import { randomUUID } from 'node:crypto';
import { type EngineRequest, type RunContext } from './claude-engine.js';
import { cliEnvironment } from './cli-environment.js';
import { cliOptions } from './cli-options.js';
import { isExecutable } from './cli-path.js';
import { type CliProbe } from './cli-probe.js';
import { Conversation } from './conversation.js';
import { deferred } from './deferred.js';
import { type EngineFolders } from './engine-folders.js';
import {
  type Ending,
  type EngineErrorCode,
  type EngineEvent,
  type FailedEnding,
  type PartialOutcome,
  type Usage,
} from './engine-event.js';
import { type EngineNotice, type LiveLaunch } from './engine-notice.js';
import { EventQueue } from './event-queue.js';
import { engineError } from './failure.js';
import { type Guard } from './guard.js';
import { within } from './launch-end.js';
import { type Ladder, Launch } from './launch.js';
import { type Launcher } from './launcher.js';
import { higherUsage, NO_USAGE } from './open-message.js';
import { heldTo, schemaForModel } from './output-schema.js';
import { OutputGate, type OutputLimits } from './output-gate.js';
import { refusalOf } from './path-containment.js';
import { permissionCallback } from './permission-question.js';
import { PromptInput } from './prompt-input.js';
import { interruptedEnding } from './result-ending.js';
import { RunAbort } from './run-abort.js';
import { RunDeadline } from './run-deadline.js';
import { StallWatchdog } from './stall-watchdog.js';
import { endingOfKept } from './standing.js';
import { Steering } from './steering.js';
import { endingOfStop, type StopCause } from './stop-cause.js';
import { StreamParser } from './stream-parser.js';
import { SUPPORTED_TOOLS, type SupportedTool } from './supported-tools.js';
import { type Upstream } from './upstream.js';

/** What the runs of one engine have in common. */
export interface RunSettings {
  /** Null: there is no CLI for this platform. */
  cliPath: string | null;
  folders: EngineFolders;
  launcher: Launcher;
  /** What is offered. */
  tools: readonly SupportedTool[];
  upstream: Upstream;
  models: readonly string[] | undefined;
  apiMaxRetries: number | undefined;
  defaultModel: string | undefined;
  stallMs: number;
  probe: CliProbe;
  ladder: Ladder;
  guard: Guard | null;
  outputLimits: OutputLimits;
  onNotice: (notice: EngineNotice) => void;
}

/** Nobody hears what the CLI would say to the end. */
const HARSH_CAUSES: ReadonlySet<StopCause> = new Set(['abandoned', 'fenced', 'flooded']);
/** A CLI that has answered may take this long to leave. */
const EXIT_GRACE_MS = 3000;
/** Lines that were on their way when the CLI exited may take this long to arrive. */
const DRAIN_MS = 1000;

/** One request on its way through one CLI. Its events end with `ended`; `settled` resolves when nothing of it is left. */
export class CliRun {
  readonly events = new EventQueue<EngineEvent>();
  private readonly parser = new StreamParser();
  private readonly input = new PromptInput();
  private readonly steering: Steering;
  /** Its turn is to be stopped as soon as there is one. */
  private isTurnUnwanted = false;
  private readonly resulted = deferred<Ending>();
  private readonly stopped = deferred<StopCause>();
  private stopCause: StopCause | null = null;
  private watchdog: StallWatchdog | null = null;
  private deadline: RunDeadline | null = null;
  private launch: Launch | null = null;
  private conversation: Conversation | null = null;
  private result: Ending | null = null;
  private hasEnded = false;
  private eventCount = 0;
  private breakage: string | null = null;
  private performance: Promise<void> | null = null;
  private readonly gate: OutputGate;

  constructor(
    private readonly request: EngineRequest,
    private readonly context: RunContext,
    private readonly settings: RunSettings,
  ) {
    this.steering = context.steering ?? new Steering();
    let release: (() => void) | undefined;
    this.gate = new OutputGate(this.events, {
      limits: settings.outputLimits,
      onOverflow: () => this.stop('flooded'),
      onHold: (isHeld) => {
        release?.();
        release = isHeld ? this.watchdog?.hold() : undefined;
      },
    });
  }

  get isStarted(): boolean {
    return this.performance !== null;
  }

  /** Whether the ending is known, and on its way to the reader. */
  get isOver(): boolean {
    return this.hasEnded;
  }

  get settled(): Promise<void> {
    return this.performance ?? Promise.resolve();
  }

  start(): void {
    this.performance ??= this.perform();
  }

  /** Ends the run; the first cause counts. After the result it only makes the CLI leave at once. */
  stop(cause: StopCause): void {
    if (cause === 'fenced') this.launch?.kill();
    this.input.silence();
    this.stopCause ??= cause;
    this.stopped.resolve(this.stopCause);
  }

  live(): LiveLaunch | null {
    if (!this.launch) return null;
    return { launchId: this.launch.id, pid: this.launch.pid, workspaceKey: this.context.workspaceKey };
  }

  private async perform(): Promise<void> {
    const { signal, kill } = this.context;
    const onKill = () => this.stop('fenced');
    const onAbort = () => this.stop(RunAbort.kindOf(signal.reason));
    this.deadline = new RunDeadline(this.request.timeoutMs, () => this.stop('timeout'));
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    kill?.addEventListener('abort', onKill, { once: true });
    if (kill?.aborted === true) onKill();
    try {
      await this.launchAndSee();
    } catch (error) {
      this.tellFailure(error);
      this.finish({ ...this.failed('engine_unavailable'), isUnstarted: !this.launch?.hasAsked });
    } finally {
      this.deadline.stop();
      signal.removeEventListener('abort', onAbort);
      kill?.removeEventListener('abort', onKill);
      this.watchdog?.stop();
      await this.launch?.remove();
      this.launch = null;
    }
  }

  private async launchAndSee(): Promise<void> {
    const { cliPath, folders, launcher } = this.settings;
    if (this.stopEarly() || this.refuse()) return;
    if (cliPath === null || !(await isExecutable(cliPath))) {
      throw new Error(
        `There is no Claude CLI at ${cliPath ?? 'the place where the Agent SDK would put it'}.`,
      );
    }
    await this.settings.probe.requireRecent(cliPath);
    const kept = await Conversation.of(this.request, this.context.transcript);
    for (const { id, text } of this.steering.takeKept(kept.entries))
      this.events.push({ type: 'user_message', messageId: id, text, isKept: true });
    const isSaidMore = this.steering.hasUnread;
    if (kept.standing.kind === 'answered' && !isSaidMore && (await this.steering.isOver())) {
      this.finish(endingOfKept(kept.standing));
      return;
    }
    this.conversation = kept;
    const workspace = await folders.makeWorkspace(this.context.workspaceKey);
    const id = randomUUID();
    const launchFolders = await folders.makeLaunch(id);
    const launch = new Launch({ ...this.settings, id, folders: launchFolders });
    this.launch = launch;
    await kept.writeTo(launchFolders.config);
    const { site, token } = await launch.prepare(workspace);
    const question = kept.question(isSaidMore);
    const { outputSchema } = this.request;
    const mayAsk = this.mayAsk();
    // A CLI that goes on by itself asks as soon as it is up.
    if (kept.standing.kind === 'cut_off') await Promise.race([mayAsk, this.stopped.promise]);
    if (this.stopEarly()) return;

    const conversation = query({
      prompt: this.input.messages(question, mayAsk),
      options: {
        ...kept.options(),
        ...cliOptions(this.request, {
          workspace: site.workspace,
          containment: launcher.containment,
          tools: this.settings.tools,
          defaultModel: this.settings.defaultModel,
          schema: outputSchema ? await schemaForModel(outputSchema) : null,
          canUseTool: this.canUseTool(site.workspace),
        }),
        pathToClaudeCodeExecutable: cliPath,
        env: {
          ...cliEnvironment({
            id,
            configFolder: launchFolders.config,
            site: site.environment,
            token,
            apiMaxRetries: this.settings.apiMaxRetries,
          }),
          ...kept.environment(),
        },
        spawnClaudeCodeProcess: (options) => this.gate.before(launch.spawn(site, options)),
      },
    });
    this.steering.attach({
      send: ({ id: uuid, text }) => this.input.add({ text, uuid }),
      stopTurn: () => this.stopTurn(conversation),
    });
    try {
      await this.converse(conversation, launch);
    } finally {
      this.input.close();
      conversation.close();
    }
  }

  /** Resolves when the model may be asked; never, where the run ends before. */
  private mayAsk(): Promise<void> {
    const { mayAsk = () => Promise.resolve() } = this.context;
    return mayAsk().catch(async (error: unknown) => {
      // Whoever asked for an end by then has aborted the signal: that is the cause.
      if (this.stopCause === null) this.tellFailure(error);
      this.stop('barred');
      await new Promise(() => undefined);
    });
  }

  /** Asks for what nothing allows, and stops the clocks meanwhile; undefined where nobody is to be asked. */
  private canUseTool(workspace: string): CanUseTool | undefined {
    const { askPermission } = this.context;
    if (this.request.permissionMode !== 'ask' || !askPermission) return undefined;
    const isContainedByHook = this.settings.launcher.containment === 'file-tools';
    return permissionCallback(askPermission, {
      hold: () => this.hold(),
      refusalOf: async (tool, input) => (isContainedByHook ? refusalOf({ tool, input, workspace }) : null),
    });
  }

  private hold(): () => void {
    const releases = [this.deadline?.hold(), this.watchdog?.hold()];
    return () => {
      for (const release of releases) release?.();
    };
  }

  /** Whether there is a reason to stop already, before the CLI is started. Then that is the end. */
  private stopEarly(): boolean {
    if (this.stopCause === null) return false;
    this.finish(this.endingOf(this.stopCause));
    return true;
  }

  /** Whether the request needs a tool that this engine does not offer: nothing is answered without it. */
  private refuse(): boolean {
    const { tools } = this.settings;
    const missing = (this.request.tools ?? []).filter(
      (name) => isOneOf(SUPPORTED_TOOLS, name) && !isOneOf(tools, name),
    );
    if (missing.length === 0) return false;
    const detail = `There is no ${missing.join(', ')} on the server that took this.`;
    this.finish({
      kind: 'failed',
      error: engineError('engine_unavailable', { detail, retryable: false }),
      ...this.parser.partial(),
    });
    return true;
  }

  /** Waits for whichever comes first: the result, a reason to stop, or the end of the CLI. */
  private async converse(conversation: Query, launch: Launch): Promise<void> {
    this.watchdog = new StallWatchdog(this.settings.stallMs, () => this.stop('stalled'));
    const reading = this.read(conversation);
    const silence = Promise.race([reading, launch.exited.then(() => within(DRAIN_MS, reading))]);
    const outcome = await Promise.race([
      this.resulted.promise.then((ending) => ({ kind: 'result', ending }) as const),
      this.stopped.promise.then((cause) => ({ kind: 'stop', cause }) as const),
      silence.then(() => ({ kind: 'death' }) as const),
    ]);
    this.watchdog.stop();
    switch (outcome.kind) {
      case 'result':
        this.finish(outcome.ending);
        this.input.close();
        await within(EXIT_GRACE_MS, Promise.race([launch.exited, this.stopped.promise]));
        return launch.end();
      case 'stop': {
        const { cause } = outcome;
        const isGentle = this.parser.hasStarted && !HARSH_CAUSES.has(cause);
        await launch.end(isGentle ? () => this.interrupt(conversation) : undefined);
        this.finish(this.endingOf(cause));
        return;
      }
      case 'death':
        launch.tellDeath(this.breakage);
        this.finish(
          this.settings.guard?.hasStruck(launch.id)
            ? this.endingOf('fenced')
            : { ...this.failed(this.orUnavailable('internal')), isUnstarted: !this.hasBegun(launch) },
        );
        return launch.end();
    }
  }

  /** Takes the CLI's lines until there are no more, or none can be read. */
  private async read(conversation: Query): Promise<void> {
    try {
      for await (const line of conversation) {
        this.conversation?.see(line);
        const read = this.steering.see(line);
        if (read && this.stopCause === null)
          this.events.push({ type: 'user_message', messageId: read.id, text: read.text, isKept: false });
        const events = this.parser.parse(line);
        if (this.isTurnUnwanted) this.stopTurn(conversation);
        this.watchdog?.saw(events);
        for (const event of events) {
          if (event.type === 'ended')
            await this.seeResult(await heldTo(this.request.outputSchema, event.ending));
          // The CLI would go on trying for minutes with a key that was refused.
          else if (event.type === 'retrying' && event.code === 'upstream_authentication_failed')
            this.stop('refused');
          else this.tell(event);
        }
      }
    } catch (error) {
      this.breakage = String(error);
    }
  }

  private tell(event: EngineEvent): void {
    this.eventCount += 1;
    if (this.eventCount <= this.settings.outputLimits.maxEvents) {
      this.events.push(event);
      return;
    }
    this.gate.shut();
    this.stop('flooded');
  }

  private async interrupt(conversation: Query): Promise<void> {
    // Not in the Agent SDK's types (0.3.330): the CLI would go on with what it was told further.
    const interruptible: { interrupt: (options: { cancelQueued: true }) => Promise<unknown> } = conversation;
    await interruptible.interrupt({ cancelQueued: true });
    await this.resulted.promise;
    this.input.close();
  }

  private async seeResult(ending: Ending): Promise<void> {
    if (ending.kind === 'failed' && ending.error.code === 'upstream_rate_limited')
      ending.error.retryAfterMs = this.launch?.retryAfterMs ?? null;
    const isWanted = ending.kind === 'cancelled' && this.stopCause === null;
    this.result = isWanted ? interruptedEnding(ending, this.parser.lastWords) : ending;
    if (await this.isLast(this.result)) this.resulted.resolve(this.result);
  }

  /** Whether the result is the last one: nothing that the CLI was told is left to be answered, and nothing more comes. */
  private async isLast(result: Ending): Promise<boolean> {
    if (result.kind !== 'completed' || this.stopCause !== null) return true;
    if (this.steering.hasUnread) return false;
    // The answer is there: what is left to do does not make it late.
    const release = this.hold();
    const isOver = await this.steering.isOver();
    release();
    return isOver;
  }

  /** Stops what the CLI is at, because somebody wants that; it stays, and answers what it is told next. */
  private stopTurn(conversation: Query): void {
    this.isTurnUnwanted = !this.parser.hasStarted;
    if (!this.isTurnUnwanted) conversation.interrupt().catch(() => undefined);
  }

  private endingOf(cause: StopCause): Ending {
    const outcome = this.result ? partialOf(this.result) : this.parser.partial();
    return endingOfStop(cause, outcome, this.parser);
  }

  /** A CLI that never came up was not available, whatever else is wrong with it. */
  private orUnavailable(code: EngineErrorCode): EngineErrorCode {
    return this.parser.hasStarted ? code : 'engine_unavailable';
  }

  private hasBegun(launch: Launch): boolean {
    return this.parser.hasStarted || launch.hasAsked;
  }

  private failed(code: EngineErrorCode): FailedEnding {
    return { kind: 'failed', error: engineError(code), ...this.parser.partial() };
  }

  private finish(said: Ending): void {
    this.hasEnded = true;
    this.conversation?.end();
    const ending = withUsage(said, this.launch?.usage ?? NO_USAGE);
    this.events.push({ type: 'ended', ending });
    this.events.close();
  }

  private tellFailure(error: unknown): void {
    const launchId = this.launch?.id ?? null;
    this.settings.onNotice({ kind: 'launch_failed', launchId, reason: String(error) });
  }
}

/** What the API has counted is what is to be paid, also where the CLI does not know of it. */
function withUsage<E extends Ending>(ending: E, counted: Usage): E {
  const usage = higherUsage(ending.usage ?? NO_USAGE, counted);
  return ending.usage === null && usage.inputTokens + usage.outputTokens === 0
    ? ending
    : { ...ending, usage };
}

function isOneOf(names: readonly string[], name: string): boolean {
  return names.includes(name);
}

function partialOf({
  usage,
  costUsd,
  numTurns,
  model,
  permissionDenials,
  stopReason,
}: Ending): PartialOutcome {
  return { stopReason, usage, costUsd, numTurns, model, permissionDenials };
}
