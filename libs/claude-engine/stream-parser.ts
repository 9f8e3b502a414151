import { boundedInput, cut, smallEnough } from './bounded-text.js';
import {
  type ApiRetryLine,
  type ApiUsage,
  type AssistantLine,
  type InitLine,
  lineKind,
  readLine,
  readStreamStep,
  type ResultLine,
  type StreamEventLine,
  TextBlockSchema,
  ThinkingBlockSchema,
  ToolUseBlockSchema,
  toolResults,
  type UserLine,
} from './cli-line.js';
import {
  type Ending,
  type EngineErrorCode,
  type EngineEvent,
  type PartialOutcome,
  type PermissionDenial,
} from './engine-event.js';
import { codeOfStatus } from './failure.js';
import { NO_USAGE, OpenMessage } from './open-message.js';
import { endingOf } from './result-ending.js';

/** Lines that we know and that are no events: they come with every request, or with every delta, or are read elsewhere. */
const QUIET_KINDS: ReadonlySet<string> = new Set([
  'command_lifecycle',
  'system/mirror_error',
  'system/status',
  'system/thinking_tokens',
  'system/session_state_changed',
]);

/** Turns the lines of one run of the CLI into events; it may have several results, and the last one tells all. Knows nothing of processes and deadlines. */
export class StreamParser {
  /** Whether the CLI has come up: it has said what it is. */
  hasStarted = false;

  private open: OpenMessage | null = null;
  /** The last message that came as deltas: lines that repeat it say nothing new. */
  private streamedId: string | null = null;
  private turns = 0;
  private retries = 0;
  private usage = NO_USAGE;
  private model: string | null = null;
  private stopReason: string | null = null;
  private errorWord: string | null = null;
  /** What the last message of this turn has said, be it whole or not. */
  private said = '';
  /** What the turn had said last that the last result ended. */
  private saidLast = '';
  private turnsBefore = 0;
  private readonly denials = new Map<string, PermissionDenial>();
  /** A message broke off. What comes next, unless it is the result, is another try. */
  private isBrokenOff = false;

  constructor(private readonly now: () => number = Date.now) {}

  /** The events of one line, in order. A result's last one is `ended`: the ending as the CLI sees it. */
  parse(raw: unknown): EngineEvent[] {
    const line = readLine(raw);
    if (!line) return QUIET_KINDS.has(lineKind(raw)) ? [] : asRaw(raw);
    if ('parent_tool_use_id' in line && typeof line.parent_tool_use_id === 'string') return asRaw(raw);
    switch (line.type) {
      case 'system':
        return line.subtype === 'init' ? this.started(line) : this.retrying(line);
      case 'stream_event':
        return this.stream(line);
      case 'assistant':
        return this.assistant(line);
      case 'user':
        return this.user(line) ?? asRaw(raw);
      case 'result':
        return [...this.finishMessage(), { type: 'ended', ending: this.ending(line) }];
    }
  }

  /** The last words of the turn that the last result ended, also where they were cut off. */
  get lastWords(): string {
    return this.saidLast;
  }

  /** What the run has used so far, for a run whose result never comes. */
  partial(): PartialOutcome {
    return {
      stopReason: null,
      usage: this.hasStarted ? (this.open?.usageOnTopOf(this.usage) ?? this.usage) : null,
      costUsd: null,
      numTurns: this.hasStarted ? this.turns : null,
      model: this.model,
      permissionDenials: [],
    };
  }

  private started({
    model,
    claude_code_version: cliVersion,
    session_id: cliSessionId,
  }: InitLine): EngineEvent[] {
    this.model = model;
    if (this.hasStarted) return [];
    this.hasStarted = true;
    return [{ type: 'started', engine: 'cli', model, cliVersion, cliSessionId }];
  }

  private retrying(line: ApiRetryLine): EngineEvent[] {
    const retryAt = new Date(this.now() + line.retry_delay_ms).toISOString();
    return [this.retry(codeOfStatus(line.error_status), retryAt)];
  }

  private retry(code: EngineErrorCode, retryAt: string | null): EngineEvent {
    this.breakOff();
    this.isBrokenOff = false;
    this.said = '';
    this.retries += 1;
    return { type: 'retrying', attempt: this.retries, code, retryAt };
  }

  private stream(line: StreamEventLine): EngineEvent[] {
    const step = readStreamStep(line);
    if (step?.kind === 'start')
      return this.beginMessage(step.messageId, { isStreamed: true, usage: step.usage });
    if (!step || !this.open) return [];
    switch (step.kind) {
      case 'text':
        return [this.open.addText(step.text)];
      case 'thinking':
        return [this.open.addThinking(step.text)];
      case 'delta':
        this.open.setUsage(step.usage);
        this.stopReason = step.stopReason ?? this.stopReason;
        return [];
      case 'stop':
        if (!step.isBrokenOff) return this.finishMessage();
        this.breakOff();
        return [];
    }
  }

  private assistant({ message, error }: AssistantLine): EngineEvent[] {
    if (error !== undefined) {
      // The CLI's own words about a failure; the result tells it again.
      this.errorWord = error;
      return [];
    }
    const isNew = message.id !== this.open?.id && message.id !== this.streamedId;
    const events = isNew
      ? this.beginMessage(message.id, { isStreamed: false, usage: message.usage ?? {} })
      : [];
    this.stopReason = message.stop_reason ?? this.stopReason;
    return [...events, ...message.content.flatMap((block) => this.block(block))];
  }

  private block(block: unknown): EngineEvent[] {
    const call = ToolUseBlockSchema.safeParse(block).data;
    if (call)
      return [{ type: 'tool_use', toolUseId: call.id, name: call.name, input: boundedInput(call.input) }];
    if (!this.open || this.open.isStreamed) return [];
    const text = TextBlockSchema.safeParse(block).data?.text;
    if (text) return [this.open.addText(text)];
    const thinking = ThinkingBlockSchema.safeParse(block).data?.thinking;
    return thinking ? [this.open.addThinking(thinking)] : [];
  }

  /** Null where the line holds no tool result. */
  private user(line: UserLine): EngineEvent[] | null {
    const results = toolResults(line);
    if (results.length === 0) return null;
    const finished = this.open?.isStreamed ? [] : this.finishMessage();
    const events = results.map(({ toolUseId, content, isError }): EngineEvent => {
      const { text, truncated } = cut(content);
      return { type: 'tool_result', toolUseId, content: text, isError, truncated };
    });
    return [...finished, ...events];
  }

  private beginMessage(
    id: string,
    { isStreamed, usage }: { isStreamed: boolean; usage: ApiUsage },
  ): EngineEvent[] {
    const before = this.isBrokenOff ? [this.retry('upstream_overloaded', null)] : this.finishMessage();
    this.turns += 1;
    this.open = new OpenMessage(id, this.turns, isStreamed);
    this.open.setUsage(usage);
    if (isStreamed) this.streamedId = id;
    return before;
  }

  private finishMessage(): EngineEvent[] {
    if (!this.open) return [];
    const whole = this.open.whole();
    this.said = this.open.said || this.said;
    this.usage = this.open.usageOnTopOf(this.usage);
    this.open = null;
    return [...whole, { type: 'usage', ...this.usage }];
  }

  /** Its tokens were used all the same, but it is no turn. */
  private breakOff(): void {
    if (!this.open) return;
    this.usage = this.open.usageOnTopOf(this.usage);
    this.said = this.open.said || this.said;
    this.turns -= 1;
    this.open = null;
    this.isBrokenOff = true;
  }

  private ending(line: ResultLine): Ending {
    const { numTurns, permissionDenials, ...ending } = endingOf(line, {
      partial: this.partial(),
      stopReason: this.stopReason,
      errorWord: this.errorWord,
    });
    this.turnsBefore += numTurns ?? 0;
    for (const denial of permissionDenials) this.denials.set(denial.toolUseId, denial);
    this.beginTurn();
    return { ...ending, numTurns: this.turnsBefore, permissionDenials: [...this.denials.values()] };
  }

  /** What a turn before it has left behind is not its own. */
  private beginTurn(): void {
    this.saidLast = this.said;
    this.said = '';
    this.stopReason = null;
    this.errorWord = null;
    this.isBrokenOff = false;
  }
}

function asRaw(line: unknown): EngineEvent[] {
  return [{ type: 'raw', line: smallEnough(line) }];
}
