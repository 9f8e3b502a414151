import { type SDKMessage } from '@anthropic-ai/claude-agent-sdk';
import { cut } from './bounded-text.js';
import { type EngineRequest, type RunContext } from './claude-engine.js';
import { isExecutable } from './cli-path.js';
import { type CliSupply } from './cli-supply.js';
import { Conversation } from './conversation.js';
import { deferred } from './deferred.js';
import { type Ending, type EngineErrorCode, type EngineEvent, type PartialOutcome } from './engine-event.js';
import { type LiveLaunch } from './engine-notice.js';
import { EventQueue } from './event-queue.js';
import { engineError } from './failure.js';
import { type Guard } from './guard.js';
import { within } from './launch-end.js';
import { type CliSettings, LaunchedCli, type Occupant } from './launched-cli.js';
import { type LaunchRequest, launchRequestOf } from './launch-request.js';
import { NO_USAGE } from './open-message.js';
import { type Question } from './prompt-input.js';
import { RunAbort, type RunAbortKind } from './run-abort.js';
import { StallWatchdog } from './stall-watchdog.js';
import { type KeptAnswer } from './standing.js';
import { StreamParser } from './stream-parser.js';
import { SUPPORTED_TOOLS } from './supported-tools.js';

/** What the runs of one engine have in common. */
export interface RunSettings extends CliSettings {
  /** Null: there is no CLI for this platform. */
  cliPath: string | null;
  defaultModel: string | undefined;
  stallMs: number;
  guard: Guard | null;
}

/** Why a run is ended before its result. `abandoned`: nobody reads it any more. `refused`: the API does not take the key. */
type StopCause = RunAbortKind | 'stalled' | 'abandoned' | 'refused';

/** A CLI that has answered may take this long to leave. */
const EXIT_GRACE_MS = 3000;
/** Lines that were on their way when the CLI exited may take this long to arrive. */
const DRAIN_MS = 1000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** Events by which the model has begun to answer. */
const WORDS: ReadonlySet<EngineEvent['type']> = new Set(['text', 'thinking', 'tool_use', 'message']);

/** One request on its way through one CLI. Its events end with `ended`; `settled` resolves when nothing of it is left. */
export class CliRun implements Occupant {
  readonly events = new EventQueue<EngineEvent>();
  private readonly parser = new StreamParser();
  private readonly resulted = deferred<Ending>();
  private readonly stopped = deferred<StopCause>();
  private stopCause: StopCause | null = null;
  private watchdog: StallWatchdog | null = null;
  private current: LaunchedCli | null = null;
  private conversation: Conversation | null = null;
  private result: Ending | null = null;
  private hasEnded = false;
  private hasSpoken = false;
  private askedAt: number | null = null;
  private permission: Promise<void> | null = null;
  private performance: Promise<void> | null = null;

  constructor(
    private readonly request: EngineRequest,
    private readonly context: RunContext,
    private readonly settings: RunSettings,
    private readonly supply: CliSupply,
  ) {}

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
    this.stopCause ??= cause;
    this.stopped.resolve(this.stopCause);
  }

  live(): LiveLaunch | null {
    if (!this.current) return null;
    const { id: launchId, pid } = this.current.launch;
    return { launchId, pid, workspaceKey: this.context.workspaceKey };
  }

  private async perform(): Promise<void> {
    const { signal } = this.context;
    const onAbort = () => this.stop(RunAbort.kindOf(signal.reason));
    const timeoutMs = Math.min(this.request.timeoutMs, LONGEST_TIMER_MS);
    const deadline = setTimeout(() => this.stop('timeout'), timeoutMs);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      await this.launchAndSee();
    } catch (error) {
      this.tellFailure(error);
      this.finish(this.failed('engine_unavailable'));
    } finally {
      clearTimeout(deadline);
      signal.removeEventListener('abort', onAbort);
      this.watchdog?.stop();
      await this.current?.remove();
      this.current = null;
    }
  }

  private async launchAndSee(): Promise<void> {
    if (this.stopEarly() || this.refuse()) return;
    const { workspaceKey, transcript } = this.context;
    const request = launchRequestOf(this.request, this.settings);
    // Nothing is lost by asking at once where it is likely that nothing has to be started.
    if (this.supply.hasKept(workspaceKey)) void this.mayAsk();
    const kept = await this.supply.takeKept(request, this.context, this.request.promptId);
    this.current = kept;
    this.conversation = kept
      ? Conversation.remembered(this.request, transcript)
      : await Conversation.of(this.request, transcript);
    const { standing } = this.conversation;
    if (standing.kind === 'answered') {
      this.finish(endingOfKept(standing));
      return;
    }
    await this.answer(this.conversation, request);
  }

  /** Asks the CLI at hand, a spare, or one that is started for it. */
  private async answer(conversation: Conversation, request: LaunchRequest): Promise<void> {
    if (!this.current) this.supply.makeRoom();
    if (!this.current && conversation.isFresh)
      this.current = await this.supply.takeSpare(request, this.context);
    const cli = this.current ?? (await this.launch(conversation, request));
    if (!cli) return;
    if (this.stopEarly()) return cli.launch.end();
    cli.enter(this, conversation);
    const question = conversation.question();
    if (question) void this.mayAsk().then(() => this.stopCause ?? this.ask(cli, question));
    await this.converse(cli, () => this.supply.keep(cli, { ...this.context, request, conversation }));
  }

  /** Starts a CLI for it. Null where the run has ended before. */
  private async launch(conversation: Conversation, request: LaunchRequest): Promise<LaunchedCli | null> {
    const { cliPath, folders } = this.settings;
    if (cliPath === null || !(await isExecutable(cliPath))) {
      throw new Error(
        `There is no Claude CLI at ${cliPath ?? 'the place where the Agent SDK would put it'}.`,
      );
    }
    if (!conversation.isFresh) this.supply.missKept();
    const workspace = await folders.makeWorkspace(this.context.workspaceKey);
    const cli = await LaunchedCli.make(this.settings);
    this.current = cli;
    await conversation.writeTo(cli.folders.config);
    await cli.prepare(workspace);
    // A CLI that goes on by itself asks as soon as it is up.
    if (conversation.question() === null) await Promise.race([this.mayAsk(), this.stopped.promise]);
    if (this.stopEarly()) return null;
    cli.start(cliPath, request, { options: conversation.options(), environment: conversation.environment() });
    return cli;
  }

  /** Resolves when the model may be asked; never, where the run ends before. */
  private mayAsk(): Promise<void> {
    const { mayAsk = () => Promise.resolve() } = this.context;
    this.permission ??= mayAsk().catch(async () => {
      this.stop('abandoned');
      await new Promise(() => undefined);
    });
    return this.permission;
  }

  /** Whether there is a reason to stop already, before the CLI is started or asked. Then that is the end. */
  private stopEarly(): boolean {
    if (this.stopCause === null) return false;
    this.finish(this.endingOf(this.stopCause));
    return true;
  }

  /** Whether the request needs a tool that this engine does not offer: nothing is answered without it. */
  private refuse(): boolean {
    const { tools } = this.settings.launcher;
    const missing = (this.request.tools ?? []).filter(
      (name) => isOneOf(SUPPORTED_TOOLS, name) && !isOneOf(tools, name),
    );
    if (missing.length === 0) return false;
    const detail = `Without a sandbox there is no ${missing.join(', ')} on the server that took this.`;
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
    const silence = Promise.race([cli.ended, launch.exited.then(() => within(DRAIN_MS, cli.ended))]);
    const outcome = await Promise.race([
      this.resulted.promise.then((ending) => ({ kind: 'result', ending }) as const),
      this.stopped.promise.then((cause) => ({ kind: 'stop', cause }) as const),
      silence.then(() => ({ kind: 'death' }) as const),
    ]);
    this.watchdog.stop();
    switch (outcome.kind) {
      case 'result':
        this.finish(outcome.ending);
        if (outcome.ending.kind === 'completed' && this.stopCause === null && keep()) {
          this.current = null;
          return;
        }
        cli.closeInput();
        await within(EXIT_GRACE_MS, Promise.race([launch.exited, this.stopped.promise]));
        return launch.end();
      case 'stop': {
        const { cause } = outcome;
        const isGentle = this.parser.hasStarted && cause !== 'abandoned' && cause !== 'fenced';
        await launch.end(isGentle ? () => this.interrupt(cli) : undefined);
        this.finish(this.endingOf(cause));
        return;
      }
      case 'death':
        launch.tellDeath(cli.breakage);
        this.finish(
          this.settings.guard?.hasStruck(launch.id)
            ? this.endingOf('fenced')
            : this.failed(this.orUnavailable('internal')),
        );
        return launch.end();
    }
  }

  /** Takes a line of the CLI. */
  see(line: SDKMessage): void {
    this.conversation?.see(line);
    const events = this.parser.parse(line);
    this.watchdog?.saw(events);
    for (const event of events) {
      if (!this.hasSpoken && WORDS.has(event.type)) this.hearFirstWord();
      if (event.type === 'ended') this.seeResult(event.ending);
      // The CLI would go on trying for minutes with a key that was refused.
      else if (event.type === 'retrying' && event.code === 'upstream_authentication_failed')
        this.stop('refused');
      else this.events.push(event);
    }
  }

  private ask(cli: LaunchedCli, question: Question): void {
    this.askedAt = now();
    cli.ask(question);
  }

  private hearFirstWord(): void {
    this.hasSpoken = true;
    const { askedAt, current } = this;
    if (askedAt === null || !current) return;
    const { id: launchId } = current.launch;
    this.settings.onNotice({ kind: 'first_word', launchId, askedAt, spokeAt: now() });
  }

  private async interrupt(cli: LaunchedCli): Promise<void> {
    await cli.interrupt();
    await this.resulted.promise;
    cli.closeInput();
  }

  private seeResult(ending: Ending): void {
    if (ending.kind === 'failed' && ending.error.code === 'upstream_rate_limited')
      ending.error.retryAfterMs = this.current?.launch.retryAfterMs ?? null;
    this.result ??= ending;
    this.resulted.resolve(ending);
  }

  private endingOf(cause: StopCause): Ending {
    const outcome = this.result ? partialOf(this.result) : this.parser.partial();
    switch (cause) {
      case 'cancelled':
      case 'abandoned':
        return { kind: 'cancelled', ...outcome };
      case 'timeout':
        return { kind: 'failed', error: engineError('timeout'), ...outcome };
      case 'stalled':
        return { kind: 'failed', error: engineError(this.orUnavailable('stalled')), ...outcome };
      case 'refused':
        return { kind: 'failed', error: engineError('upstream_authentication_failed'), ...outcome };
      case 'shutdown': {
        const detail = 'The server that ran this was shut down.';
        return this.endedByServer(detail, outcome);
      }
      case 'fenced': {
        const detail = 'The server that ran this lost touch, and its run was ended.';
        return this.endedByServer(detail, outcome);
      }
    }
  }

  private endedByServer(detail: string, outcome: PartialOutcome): Ending {
    return {
      kind: 'failed',
      error: engineError('engine_unavailable', { detail }),
      isByServer: true,
      ...outcome,
    };
  }

  /** A CLI that never came up was not available, whatever else is wrong with it. */
  private orUnavailable(code: EngineErrorCode): EngineErrorCode {
    return this.parser.hasStarted ? code : 'engine_unavailable';
  }

  private failed(code: EngineErrorCode): Ending {
    return { kind: 'failed', error: engineError(code), ...this.parser.partial() };
  }

  private finish(ending: Ending): void {
    this.hasEnded = true;
    this.conversation?.end();
    this.events.push({ type: 'ended', ending });
    this.events.close();
  }

  private tellFailure(error: unknown): void {
    const launchId = this.current?.launch.id ?? null;
    this.settings.onNotice({ kind: 'launch_failed', launchId, reason: String(error) });
  }
}

const now = () => performance.timeOrigin + performance.now();

/** Of a run that found its prompt answered: it has asked nobody. */
function endingOfKept({ result: whole, stopReason, numTurns, model }: KeptAnswer): Ending {
  const { text: result, truncated } = cut(whole);
  const figures = { stopReason, usage: NO_USAGE, costUsd: 0, numTurns, model, permissionDenials: [] };
  return { kind: 'completed', result, truncated, ...figures };
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
