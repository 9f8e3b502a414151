import { type CanUseTool, type SDKMessage } from '@anthropic-ai/claude-agent-sdk';
import { type EngineRequest, type RunContext } from './claude-engine.js';
import { type CliProbe, type UsableCli } from './cli-probe.js';
import { type CliSupply } from './cli-supply.js';
import { Conversation } from './conversation.js';
import { deferred } from './deferred.js';
import {
  type Ending,
  type EngineErrorCode,
  type EngineEvent,
  type FailedEnding,
  type PartialOutcome,
  type Usage,
} from './engine-event.js';
import { type LiveLaunch } from './engine-notice.js';
import { EventQueue } from './event-queue.js';
import { engineError } from './failure.js';
import { type Guard } from './guard.js';
import { within } from './launch-end.js';
import { type CliSettings, LaunchedCli, type Occupant } from './launched-cli.js';
import { type LaunchRequest, launchRequestOf } from './launch-request.js';
import { isAmongTools, isMcpTool, type ToolOffer, toolNames } from './mcp-servers.js';
import { higherUsage, NO_USAGE } from './open-message.js';
import { heldTo } from './output-schema.js';
import { refusalOf } from './path-containment.js';
import { permissionCallback } from './permission-question.js';
import { type Question } from './prompt-input.js';
import { interruptedEnding } from './result-ending.js';
import { RunAbort } from './run-abort.js';
import { RunDeadline } from './run-deadline.js';
import { StallWatchdog } from './stall-watchdog.js';
import { endingOfKept } from './standing.js';
import { Steering } from './steering.js';
import { endingOfStop, type StopCause } from './stop-cause.js';
import { StreamParser } from './stream-parser.js';
import { SUPPORTED_TOOLS } from './supported-tools.js';
import { type MirrorTarget } from './transcript-mirror.js';

/** What the runs of one engine have in common. */
export interface RunSettings extends CliSettings {
  /** Null: there is no CLI for this platform. */
  cliPath: string | null;
  offer: ToolOffer;
  defaultModel: string | undefined;
  stallMs: number;
  probe: CliProbe;
  guard: Guard | null;
}

/** Nobody hears what the CLI would say to the end. */
const HARSH_CAUSES: ReadonlySet<StopCause> = new Set(['abandoned', 'fenced', 'flooded']);
/** A CLI that has answered may take this long to leave. */
const EXIT_GRACE_MS = 3000;
/** Lines that were on their way when the CLI exited may take this long to arrive. */
const DRAIN_MS = 1000;
/** Events by which the model has begun to answer. */
const WORDS: ReadonlySet<EngineEvent['type']> = new Set(['text', 'thinking', 'tool_use', 'message']);

/** What there is to ask, and of whom. */
interface Task {
  conversation: Conversation;
  request: LaunchRequest;
  /** Null where the CLI goes on by itself, or is told what there is to answer. */
  question: Question | null;
}

/** One request on its way through one CLI. Its events end with `ended`; `settled` resolves when nothing of it is left. */
export class CliRun implements Occupant {
  readonly events = new EventQueue<EngineEvent>();
  private readonly parser = new StreamParser();
  private readonly steering: Steering;
  /** Its turn is to be stopped as soon as there is one. */
  private isTurnUnwanted = false;
  private readonly resulted = deferred<Ending>();
  private readonly stopped = deferred<StopCause>();
  private stopCause: StopCause | null = null;
  private watchdog: StallWatchdog | null = null;
  private deadline: RunDeadline | null = null;
  private current: LaunchedCli | null = null;
  private conversation: Conversation | null = null;
  private result: Ending | null = null;
  private hasEnded = false;
  private hasSpoken = false;
  private askedAt: number | null = null;
  /** How long what the CLI asked had to wait for leave. */
  private heldMs = 0;
  private eventCount = 0;
  private releaseHeldUp: (() => void) | undefined;
  private permission: Promise<boolean> | null = null;
  private performance: Promise<void> | null = null;

  constructor(
    private readonly request: EngineRequest,
    private readonly context: RunContext,
    private readonly settings: RunSettings,
    private readonly supply: CliSupply,
  ) {
    this.steering = context.steering ?? new Steering();
  }

  get isStarted(): boolean {
    return this.performance !== null;
  }

  /** Whether the ending is known, and on its way to the reader. */
  get isOver(): boolean {
    return this.hasEnded;
  }

  /** Whether it waits for its CLI, or for the model's first word. */
  get isWaiting(): boolean {
    return this.isStarted && !this.hasSpoken && !this.hasEnded;
  }

  /** Its CLI, while it has one. */
  get cli(): LaunchedCli | null {
    return this.current;
  }

  get settled(): Promise<void> {
    return this.performance ?? Promise.resolve();
  }

  start(): void {
    this.performance ??= this.perform();
  }

  /** Ends the run; the first cause counts. After the result it only makes the CLI leave at once. */
  stop(cause: StopCause): void {
    if (cause === 'fenced') this.current?.launch.kill();
    this.current?.silence();
    this.stopCause ??= cause;
    this.stopped.resolve(this.stopCause);
  }

  live(): LiveLaunch | null {
    if (!this.current) return null;
    const { id: launchId, pid } = this.current.launch;
    return { launchId, pid, workspaceKey: this.context.workspaceKey };
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
      this.finish({ ...this.failed('engine_unavailable'), isUnstarted: !this.current?.hasAsked });
    } finally {
      this.deadline.stop();
      signal.removeEventListener('abort', onAbort);
      kill?.removeEventListener('abort', onKill);
      this.watchdog?.stop();
      await this.current?.remove();
      this.current = null;
    }
  }

  private async launchAndSee(): Promise<void> {
    if (this.stopEarly() || this.refuse()) return;
    const { transcript } = this.context;
    const request = launchRequestOf(this.request, this.settings, {
      isSteered: this.steering.isUsed,
      canUseTool: (workspace) => this.canUseTool(workspace),
    });
    this.current = await this.supply.takeKept(request, this.context, this.request.promptId);
    const conversation = this.current
      ? Conversation.remembered(this.request, transcript)
      : await Conversation.of(this.request, transcript);
    if (!this.current && conversation.isFresh)
      this.current = await this.supply.takeSpare(request, this.context);
    // Before anything is said: what has said nothing may step aside for the API.
    const { cliPath, probe } = this.settings;
    const program = this.current ? null : await probe.requireUsable(cliPath);
    for (const { id, text } of this.steering.takeKept(conversation.entries))
      this.events.push({ type: 'user_message', messageId: id, text, isKept: true });
    const isSaidMore = this.steering.hasUnread;
    const { standing } = conversation;
    if (standing.kind === 'answered' && !isSaidMore && (await this.steering.isOver())) {
      this.finish(endingOfKept(standing));
      return;
    }
    this.conversation = conversation;
    await this.answer({ conversation, request, question: conversation.question(isSaidMore) }, program);
  }

  /** Asks the CLI at hand, or one that is started for it. */
  private async answer(task: Task, program: UsableCli | null): Promise<void> {
    const { conversation, request, question } = task;
    const cli = this.current ?? (program && (await this.launch(task, program)));
    if (!cli) return;
    if (this.stopEarly()) return cli.launch.end();
    cli.enter(this);
    // What is noted before the model may be asked is noted meanwhile: the CLI takes longer to put together what it asks.
    this.ask(cli, question);
    void this.mayBegin();
    await this.converse(cli, () => this.supply.keep(cli, { ...this.context, request, conversation }));
  }

  /** Starts a CLI for it. Null where the run has ended before. */
  private async launch({ conversation, request }: Task, program: UsableCli): Promise<LaunchedCli | null> {
    if (!conversation.isFresh) this.supply.missKept();
    this.supply.makeRoom();
    const workspace = await this.settings.folders.makeWorkspace(this.context.workspaceKey);
    const cli = await LaunchedCli.make(this.settings);
    this.current = cli;
    await conversation.writeTo(cli.folders.config);
    await cli.prepare(workspace);
    if (this.stopEarly()) return null;
    await cli.start(program, request, {
      options: conversation.options(),
      environment: conversation.environment(),
    });
    return cli;
  }

  private ask(cli: LaunchedCli, question: Question | null): void {
    if (question) {
      this.askedAt = now();
      cli.ask(question);
    }
    // A CLI that stays with its session is not this run's any more.
    const isOurs = () => this.current === cli && !this.hasEnded;
    this.steering.attach({
      send: ({ id: uuid, text }) => isOurs() && cli.ask({ text, uuid }),
      stopTurn: () => isOurs() && this.stopTurn(cli),
    });
  }

  /** Whether it may act: it is said, kept and asked nothing before. Where it may not, that is its end. */
  private mayBegin(): Promise<boolean> {
    const { mayAsk = () => Promise.resolve() } = this.context;
    this.permission ??= mayAsk().then(
      () => true,
      (error: unknown) => {
        // Whoever asked for an end by then has aborted the signal: that is the cause.
        if (this.stopCause === null) this.tellFailure(error);
        this.stop('barred');
        return false;
      },
    );
    return this.permission;
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
    const offered = toolNames(this.settings.offer);
    const missing = (this.request.tools ?? []).filter(
      (name) => (isOneOf(SUPPORTED_TOOLS, name) || isMcpTool(name)) && !isAmongTools(offered, name),
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

  /**
   * Waits for whichever comes first: the result, a reason to stop, or the end of the CLI.
   * @param keep has a CLI that has answered stay with its session, where it can
   */
  private async converse(cli: LaunchedCli, keep: () => boolean): Promise<void> {
    const { launch } = cli;
    this.watchdog = new StallWatchdog(this.settings.stallMs, () => this.stop('stalled'));
    const drained = launch.exited.then(() => this.mayBegin()).then(() => within(DRAIN_MS, cli.ended));
    const silence = Promise.race([cli.ended, drained]);
    const outcome = await Promise.race([
      this.resulted.promise.then((ending) => ({ kind: 'result', ending }) as const),
      this.stopped.promise.then((cause) => ({ kind: 'stop', cause }) as const),
      silence.then(() => ({ kind: 'death' }) as const),
    ]);
    this.watchdog.stop();
    switch (outcome.kind) {
      case 'result':
        this.finish(outcome.ending);
        if (this.mayLeaveCli(outcome.ending) && keep()) {
          this.current = null;
          return;
        }
        cli.closeInput();
        await within(EXIT_GRACE_MS, Promise.race([launch.exited, this.stopped.promise]));
        return launch.end();
      case 'stop': {
        const { cause } = outcome;
        const isGentle = this.parser.hasStarted && !HARSH_CAUSES.has(cause);
        await launch.end(isGentle ? () => this.interrupt(cli) : undefined);
        this.finish(this.endingOf(cause));
        return;
      }
      case 'death':
        launch.tellDeath(cli.breakage);
        this.finish(
          this.settings.guard?.hasStruck(launch.id)
            ? this.endingOf('fenced')
            : { ...this.failed(this.orUnavailable('internal')), isUnstarted: !this.hasBegun(cli) },
        );
        return launch.end();
    }
  }

  /** Whether the next run of the session finds nothing in the CLI that it would not expect. */
  private mayLeaveCli(ending: Ending): boolean {
    return ending.kind === 'completed' && this.stopCause === null && !this.steering.isUsed;
  }

  /** Whether the CLI may ask the model: as late as can be, for the run may be stopped meanwhile, or not held any more. */
  async mayAsk(): Promise<boolean> {
    const since = now();
    const mayBegin = await this.mayBegin();
    this.heldMs += now() - since;
    return mayBegin && this.stopCause === null && (this.context.isHeld?.() ?? true);
  }

  /** Takes what the CLI keeps of the conversation. */
  async append(...kept: Parameters<MirrorTarget['append']>): Promise<void> {
    if (await this.mayBegin()) await this.conversation?.append(...kept);
  }

  /** Takes a line of the CLI. */
  async see(line: SDKMessage): Promise<void> {
    if (!(await this.mayBegin())) return;
    this.conversation?.see(line);
    const read = this.steering.see(line);
    if (read && this.stopCause === null)
      this.events.push({ type: 'user_message', messageId: read.id, text: read.text, isKept: false });
    const events = this.parser.parse(line);
    if (this.isTurnUnwanted && this.current) this.stopTurn(this.current);
    this.watchdog?.saw(events);
    for (const event of events) {
      if (!this.hasSpoken && WORDS.has(event.type)) this.hearFirstWord();
      if (event.type === 'ended') await this.seeResult(await heldTo(this.request.outputSchema, event.ending));
      // The CLI would go on trying for minutes with a key that was refused.
      else if (event.type === 'retrying' && event.code === 'upstream_authentication_failed')
        this.stop('refused');
      else this.tell(event);
    }
  }

  overflow(): void {
    this.stop('flooded');
  }

  holdUp(isHeld: boolean): void {
    this.releaseHeldUp?.();
    this.releaseHeldUp = isHeld ? this.watchdog?.hold() : undefined;
  }

  private tell(event: EngineEvent): void {
    this.eventCount += 1;
    if (this.eventCount <= this.settings.outputLimits.maxEvents) {
      this.events.push(event);
      return;
    }
    this.current?.shut();
    this.overflow();
  }

  private hearFirstWord(): void {
    this.hasSpoken = true;
    const { askedAt, heldMs, current } = this;
    if (askedAt === null || !current) return;
    const { id: launchId } = current.launch;
    this.settings.onNotice({ kind: 'first_word', launchId, askedAt, heldMs, spokeAt: now() });
  }

  private async interrupt(cli: LaunchedCli): Promise<void> {
    await cli.interrupt();
    await this.resulted.promise;
    cli.closeInput();
  }

  private async seeResult(ending: Ending): Promise<void> {
    if (ending.kind === 'failed' && ending.error.code === 'upstream_rate_limited')
      ending.error.retryAfterMs = this.current?.launch.retryAfterMs ?? null;
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
  private stopTurn(cli: LaunchedCli): void {
    this.isTurnUnwanted = !this.parser.hasStarted;
    if (!this.isTurnUnwanted) cli.stopTurn().catch(() => undefined);
  }

  private endingOf(cause: StopCause): Ending {
    const outcome = this.result ? partialOf(this.result) : this.parser.partial();
    return endingOfStop(cause, outcome, this.parser);
  }

  /** A CLI that never came up was not available, whatever else is wrong with it. */
  private orUnavailable(code: EngineErrorCode): EngineErrorCode {
    return this.parser.hasStarted ? code : 'engine_unavailable';
  }

  private hasBegun(cli: LaunchedCli): boolean {
    return this.parser.hasStarted || cli.hasAsked;
  }

  private failed(code: EngineErrorCode): FailedEnding {
    return { kind: 'failed', error: engineError(code), ...this.parser.partial() };
  }

  private finish(said: Ending): void {
    this.hasEnded = true;
    this.conversation?.end();
    const ending = withUsage(said, this.current?.usage ?? NO_USAGE);
    this.events.push({ type: 'ended', ending });
    this.events.close();
  }

  private tellFailure(error: unknown): void {
    const launchId = this.current?.launch.id ?? null;
    this.settings.onNotice({ kind: 'launch_failed', launchId, reason: String(error) });
  }
}

const now = () => performance.timeOrigin + performance.now();

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
