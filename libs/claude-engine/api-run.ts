import { Anthropic, APIError } from '@anthropic-ai/sdk';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { cut } from './bounded-text.js';
import { type EngineRequest, type RunContext } from './claude-engine.js';
import { Conversation } from './conversation.js';
import { type EngineNotice } from './engine-notice.js';
import {
  type Ending,
  type EngineError,
  type EngineErrorCode,
  type EngineEvent,
  type PartialOutcome,
  type StopReason,
} from './engine-event.js';
import { engineError, failureOfAnswer } from './failure.js';
import { KeyProxy } from './key-proxy.js';
import { costOf, DEFAULT_MODEL, fullModelName, type Model, modelOf } from './model-table.js';
import { NO_USAGE } from './open-message.js';
import { heldTo, schemaForModel } from './output-schema.js';
import { type JsonSchema } from './plain-schema.js';
import { interruptedEnding, stopReasonOf } from './result-ending.js';
import { RunAbort } from './run-abort.js';
import { RunDeadline } from './run-deadline.js';
import { SpokenExchange } from './spoken-exchange.js';
import { historyOf } from './spoken-history.js';
import { CONTINUATION } from './spoken-message.js';
import { endingOfKept } from './standing.js';
import { StallWatchdog } from './stall-watchdog.js';
import { Steering, type UserMessage } from './steering.js';
import { endingOfStop, type StopCause } from './stop-cause.js';
import { StreamParser } from './stream-parser.js';
import { ANSWER_TOOL } from './supported-tools.js';
import { type Upstream } from './upstream.js';

/** What the runs without a CLI have in common. */
export interface ApiSettings {
  upstream: Upstream;
  models: readonly string[] | undefined;
  defaultModel: string | undefined;
  apiMaxRetries: number;
  stallMs: number;
  onNotice: (notice: EngineNotice) => void;
}

/** How often the model may try to match a schema, as with the CLI. */
const ANSWER_TRIES = 5;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 32_000;
/** Where the API wants a longer pause than this, the run ends, and says so. */
const PATIENCE_MS = 60_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** What the CLI would say first. */
const INIT = { type: 'system', subtype: 'init', claude_code_version: '' };
/** What it would say when a turn is over. Only that counts here. */
const RESULT = {
  ...{ type: 'result', subtype: 'success', is_error: false, result: '' },
  ...{ total_cost_usd: 0, num_turns: 0, modelUsage: {}, permission_denials: [] },
};
const LIMITS = new Map<EngineErrorCode, StopReason>([
  ['max_turns_reached', 'max_turns'],
  ['run_budget_reached', 'run_budget_reached'],
]);

type Message = Anthropic.Message;

/** The end of a run, from wherever it is known. */
class Ended extends Error {
  constructor(readonly error: EngineError) {
    super(error.code);
  }
}

/**
 * One request, answered by the Messages API without a CLI: one message, or a few where it must match a schema, and as much for
 * what the user says further.
 */
export class ApiRun {
  private readonly parser = new StreamParser();
  private readonly stopping = new AbortController();
  private readonly model: string;
  private readonly figures: Model;
  private cause: StopCause | null = null;
  private watchdog: StallWatchdog | null = null;
  private readonly deadline: RunDeadline;
  private readonly steering: Steering;
  /** Said further, and not answered. */
  private readonly told: UserMessage[] = [];
  /** Aborted where the user wants no more of what is being answered. */
  private turn = new AbortController();
  /** The last message that has begun to come. */
  private begun: Message | null = null;
  /** What stands for the request's. */
  private schema: JsonSchema | null = null;
  private costUsd = 0;
  private retries = 0;

  constructor(
    private readonly request: EngineRequest,
    private readonly context: RunContext,
    private readonly settings: ApiSettings,
  ) {
    this.model = fullModelName(request.model ?? settings.defaultModel ?? DEFAULT_MODEL);
    this.figures = modelOf(this.model);
    this.steering = context.steering ?? new Steering();
    this.deadline = new RunDeadline(request.timeoutMs, () => this.stop('timeout'));
  }

  /** Ends the run; the first cause counts. */
  stop(cause: StopCause): void {
    this.cause ??= cause;
    this.stopping.abort();
  }

  async *events(): AsyncGenerator<EngineEvent, void, undefined> {
    const { signal } = this.context;
    const onAbort = () => this.stop(RunAbort.kindOf(signal.reason));
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      yield { type: 'ended', ending: yield* this.perform() };
    } finally {
      this.stopping.abort();
      this.deadline.stop();
      signal.removeEventListener('abort', onAbort);
      this.watchdog?.stop();
    }
  }

  private async *perform(): AsyncGenerator<EngineEvent, Ending, undefined> {
    let proxy: KeyProxy | null = null;
    try {
      const conversation = await this.orStop(Conversation.of(this.request, this.context.transcript));
      const { standing } = conversation;
      const kept = this.steering.takeKept(conversation.entries);
      const isAnswered = standing.kind === 'answered' && !this.steering.hasUnread;
      const isOver = isAnswered && (await this.isOver());
      const history = historyOf(conversation.entries);
      if (!history && !isOver)
        throw new Ended(unavailable('This conversation has used tools: only the CLI goes on with it.'));
      for (const { id, text } of kept) yield { type: 'user_message', messageId: id, text, isKept: true };
      if (standing.kind === 'answered' && isOver) return endingOfKept(standing);
      const { upstream, models } = this.settings;
      const mayAsk = () => Promise.resolve(this.context.isHeld?.() ?? true);
      proxy = await KeyProxy.open({ upstream, folder: null, models, mayAsk });
      await this.orStop(this.mayAsk());
      const cliSessionId = conversation.cliSessionId ?? randomUUID();
      const { outputSchema } = this.request;
      if (outputSchema) this.schema = await schemaForModel(outputSchema);
      yield* this.say({ ...INIT, model: this.model, session_id: cliSessionId });
      const parentUuid = conversation.entries.findLast(({ uuid }) => uuid !== undefined)?.uuid ?? null;
      const exchange = new SpokenExchange(history ?? [], { cliSessionId, parentUuid }, async (entry) => {
        const { transcript } = this.context;
        if (transcript) await this.orStop(transcript.append(cliSessionId, { subpath: '', entries: [entry] }));
      });
      return yield* this.converse(proxy, conversation, exchange);
    } catch (error) {
      if (this.cause) return endingOfStop(this.cause, this.partial(), this.parser);
      return this.failed(error);
    } finally {
      await proxy?.close();
    }
  }

  /** Resolves when the model may be asked, or is not to be asked. */
  private async mayAsk(): Promise<void> {
    await this.context.mayAsk?.().catch((error: unknown) => {
      // Whoever asked for an end by then has aborted the signal: that is the cause.
      if (this.cause === null) this.tellFailure(error);
      this.stop('barred');
    });
  }

  private async *converse(
    proxy: KeyProxy,
    conversation: Conversation,
    exchange: SpokenExchange,
  ): AsyncGenerator<EngineEvent, Ending, undefined> {
    this.steering.attach({
      send: (message) => void this.told.push(message),
      stopTurn: () => this.turn.abort(),
    });
    const isSaidMore = this.told.length > 0;
    if (conversation.standing.kind === 'new')
      await exchange.ask(this.request.prompt, this.request.promptId ?? randomUUID());
    else if (!isSaidMore && (conversation.question() !== null || !exchange.isOpen))
      exchange.show({ role: 'user', content: [{ type: 'text', text: CONTINUATION }] });
    // A prompt whose turn was stopped is not asked again, where there is something else to be answered.
    if (isSaidMore && (conversation.standing.kind === 'stopped' || !exchange.isOpen))
      yield* this.hear(exchange);
    const client = clientOf(proxy);
    this.watchdog = new StallWatchdog(this.settings.stallMs, () => this.stop('stalled'));
    for (;;) {
      const ending = yield* this.answer(client, proxy, exchange);
      if (ending.kind !== 'completed') return ending;
      while (this.told.length === 0) if (await this.isOver()) return ending;
      yield* this.hear(exchange);
    }
  }

  /** One answer to what was said last: as many messages as it takes to match the schema, or what there is of it when it is stopped. */
  private async *answer(
    client: Anthropic,
    proxy: KeyProxy,
    exchange: SpokenExchange,
  ): AsyncGenerator<EngineEvent, Ending, undefined> {
    const { outputSchema, maxTurns = Infinity } = this.request;
    for (let tries = 1; ; tries += 1) {
      const message = yield* this.ask(client, proxy, exchange.messages);
      if (!message) return yield* this.breakOff(exchange);
      const ending = await heldTo(outputSchema, this.endingOf(message));
      const reaction = reactionTo(message, ending);
      if (this.schema) yield* this.say({ type: 'user', message: reaction });
      exchange.show({ role: 'assistant', content: message.content });
      if (this.schema) exchange.show(reaction);
      if (ending.kind === 'failed' && tries < ANSWER_TRIES) {
        if (tries >= maxTurns) throw new Ended(engineError('max_turns_reached'));
        continue;
      }
      if (ending.kind === 'completed') {
        const { stop_reason: word } = message;
        const stopReason = word === 'tool_use' ? 'end_turn' : word;
        await exchange.keepAnswer({ ...message, text: ending.result, stopReason });
      }
      return ending;
    }
  }

  /** The user wants no more of it: the ending, unless something waits. */
  private async *breakOff(exchange: SpokenExchange): AsyncGenerator<EngineEvent, Ending, undefined> {
    yield* this.endTurn();
    const text = this.parser.lastWords;
    await exchange.breakOff(this.begun && text !== '' ? { ...this.begun, text, stopReason: null } : null);
    return interruptedEnding({ kind: 'cancelled', ...this.partial() }, text);
  }

  /** Takes in what was said further: it is what is answered next. */
  private async *hear(exchange: SpokenExchange): AsyncGenerator<EngineEvent, void, undefined> {
    yield* this.endTurn();
    const heard = this.told.splice(0);
    for (const { id, text } of heard) await exchange.ask(text, id);
    // A stop that came before was not meant for these.
    this.turn = new AbortController();
    for (const { id, text } of heard) {
      this.steering.see({ type: 'command_lifecycle', command_uuid: id, state: 'started' });
      yield { type: 'user_message', messageId: id, text, isKept: false };
    }
  }

  /** What the turn has left behind is not the next one's. */
  private endTurn(): EngineEvent[] {
    return this.say(RESULT).filter(({ type }) => type !== 'ended');
  }

  /** @throws Error where the run is stopped meanwhile */
  private async isOver(): Promise<boolean> {
    // The answer is there: what is left to do does not make it late.
    const releases = [this.deadline.hold(), this.watchdog?.hold()];
    try {
      return await this.orStop(this.steering.isOver());
    } finally {
      for (const release of releases) release?.();
    }
  }

  /** One message, from however many tries; null where the turn is stopped before it is whole. */
  private async *ask(
    client: Anthropic,
    proxy: KeyProxy,
    messages: Anthropic.MessageParam[],
  ): AsyncGenerator<EngineEvent, Message | null, undefined> {
    this.begun = null;
    while (!this.isTurnUnwanted()) {
      const before = this.parser.partial().usage;
      let message: Message | null = null;
      let failure: unknown = null;
      try {
        message = yield* this.stream(client, messages);
      } catch (error) {
        failure = error;
      }
      // What was used is to be paid, however it ended.
      this.pay(before);
      if (message) return message;
      if (this.cause) throw failure;
      if (!this.isTurnUnwanted()) yield* this.pause(failure, proxy);
    }
    return null;
  }

  private async *stream(
    client: Anthropic,
    messages: Anthropic.MessageParam[],
  ): AsyncGenerator<EngineEvent, Message, undefined> {
    const stream = client.messages.stream(this.params(messages), { signal: this.unwanted() });
    // Told by the loop as well.
    stream.on('error', () => undefined);
    for await (const event of stream) {
      if (event.type === 'message_start') this.begun = event.message;
      yield* this.say({ type: 'stream_event', event });
    }
    const message = await stream.finalMessage();
    yield* this.say({ type: 'assistant', message });
    return message;
  }

  private isTurnUnwanted(): boolean {
    return this.turn.signal.aborted;
  }

  /** Aborted with the run or the turn. */
  private unwanted(): AbortSignal {
    return AbortSignal.any([this.stopping.signal, this.turn.signal]);
  }

  /** Waits before the next try. @throws Ended where there is none */
  private async *pause(error: unknown, proxy: KeyProxy): AsyncGenerator<EngineEvent, void, undefined> {
    const answer = answerOf(error);
    const failure = failureOfAnswer(answer);
    const isLimited = failure.code === 'upstream_rate_limited';
    const askedMs = isLimited ? proxy.retryAfterMs : null;
    const mayTryAgain = isLimited || failure.code === 'upstream_overloaded';
    if (!mayTryAgain || this.retries >= this.settings.apiMaxRetries || (askedMs ?? 0) > PATIENCE_MS)
      throw new Ended({ ...failure, retryAfterMs: askedMs });
    const backoffMs = Math.min(FIRST_PAUSE_MS * 2 ** this.retries, LONGEST_PAUSE_MS);
    const delayMs = askedMs ?? backoffMs * (0.75 + Math.random() / 4);
    this.retries += 1;
    const retry = {
      type: 'system',
      subtype: 'api_retry',
      retry_delay_ms: delayMs,
      error_status: answer.status,
    };
    yield* this.say(failure.code === 'upstream_rate_limited' ? { ...retry, error_status: 429 } : retry);
    const isStopped = () => undefined;
    await this.orStop(sleep(delayMs, undefined, { signal: this.unwanted() }).catch(isStopped));
  }

  private params(messages: Anthropic.MessageParam[]): Anthropic.MessageStreamParams {
    const { systemPrompt, appendSystemPrompt } = this.request;
    const system = [systemPrompt, appendSystemPrompt].filter((text) => text !== undefined).join('\n\n');
    return {
      model: this.model,
      max_tokens: this.maxTokens(),
      messages,
      ...(system === '' ? {} : { system }),
      ...(this.schema === null ? {} : answerBy(this.schema)),
    };
  }

  /** What is left of the budget buys no more. */
  private maxTokens(): number {
    const { maxOutputTokens, price } = this.figures;
    const { maxBudgetUsd = Infinity } = this.request;
    const affordable = Math.ceil(((maxBudgetUsd - this.costUsd) * 1_000_000) / price.output) + 1;
    return Math.max(1, Math.min(maxOutputTokens, affordable));
  }

  /** Adds what was used since. @throws Ended where that was more than the run may cost */
  private pay(before: PartialOutcome['usage']): void {
    const after = this.parser.partial().usage;
    if (!before || !after) return;
    this.costUsd += costOf(this.figures, {
      inputTokens: after.inputTokens - before.inputTokens,
      outputTokens: after.outputTokens - before.outputTokens,
      cacheReadInputTokens: after.cacheReadInputTokens - before.cacheReadInputTokens,
      cacheCreationInputTokens: after.cacheCreationInputTokens - before.cacheCreationInputTokens,
    });
    if (this.costUsd >= (this.request.maxBudgetUsd ?? Infinity))
      throw new Ended(engineError('run_budget_reached'));
  }

  private endingOf(message: Message): Ending {
    const call = message.content.find((block) => block.type === 'tool_use');
    const structuredResult = this.request.outputSchema ? (call?.input ?? null) : null;
    const text = message.content.map((block) => (block.type === 'text' ? block.text : '')).join('');
    const stopReason = stopReasonOf(message.stop_reason ?? '');
    const { usage, numTurns, model } = this.partial();
    return {
      kind: 'completed',
      ...toResult(structuredResult === null ? text : JSON.stringify(structuredResult)),
      structuredResult,
      stopReason,
      numTurns: numTurns ?? 0,
      usage: usage ?? NO_USAGE,
      costUsd: this.costUsd,
      permissionDenials: [],
      model,
    };
  }

  private failed(reason: unknown): Ending {
    if (reason instanceof Ended) {
      const stopReason = LIMITS.get(reason.error.code) ?? null;
      return { kind: 'failed', error: reason.error, ...this.partial(), stopReason };
    }
    this.tellFailure(reason);
    return {
      kind: 'failed',
      error: unavailable('The Messages API could not be asked.', true),
      ...this.partial(),
    };
  }

  private tellFailure(reason: unknown): void {
    this.settings.onNotice({ kind: 'launch_failed', launchId: null, reason: String(reason) });
  }

  private partial(): PartialOutcome {
    return { ...this.parser.partial(), costUsd: this.parser.hasStarted ? this.costUsd : null };
  }

  /** The events of what the CLI would have said. */
  private say(line: object): EngineEvent[] {
    const events = this.parser.parse(line);
    this.watchdog?.saw(events);
    return events.map((event) =>
      event.type === 'started' ? { ...event, engine: 'api' as const, cliVersion: null } : event,
    );
  }

  /** @throws Error where the run is stopped before */
  private async orStop<T>(promise: Promise<T>): Promise<T> {
    const { signal } = this.stopping;
    signal.throwIfAborted();
    let onAbort: () => void = () => undefined;
    const stopped = new Promise<never>((_, reject) => {
      onAbort = () => reject(new Error('The run is stopped.'));
      signal.addEventListener('abort', onAbort, { once: true });
    });
    const given = await Promise.race([promise, stopped]).finally(() =>
      signal.removeEventListener('abort', onAbort),
    );
    signal.throwIfAborted();
    return given;
  }
}

/** All that the client would look for in the environment, or in files, is given. */
const clientOf = ({ url: baseURL, token: apiKey }: KeyProxy) =>
  new Anthropic({
    ...{ baseURL, apiKey, authToken: null, credentials: null, config: null, profile: null, webhookKey: null },
    ...{ maxRetries: 0, timeout: LONGEST_TIMER_MS, logLevel: 'off', openTelemetry: false },
  });

export const unavailable = (detail: string, retryable = false) =>
  engineError('engine_unavailable', { detail, retryable });

/** The model answers by a call of a tool, as with the CLI. */
function answerBy(schema: JsonSchema): Pick<Anthropic.MessageStreamParams, 'tools' | 'tool_choice'> {
  const description = 'Use this tool to return your final response in the requested structured format.';
  const tool = { name: ANSWER_TOOL, description, input_schema: schema as Anthropic.Tool.InputSchema };
  return { tools: [tool], tool_choice: { type: 'tool', name: ANSWER_TOOL } };
}

/** What the model is told of its answer by a schema. */
function reactionTo(
  { content }: Message,
  ending: Ending,
): { role: 'user'; content: Anthropic.ContentBlockParam[] } {
  const isGood = ending.kind === 'completed';
  const text = ending.kind === 'failed' ? ending.error.detail : 'Structured output provided successfully';
  const results = content
    .filter((block) => block.type === 'tool_use')
    .map(({ id }) => ({ type: 'tool_result', tool_use_id: id, content: text, is_error: !isGood }) as const);
  return { role: 'user', content: results.length > 0 ? results : [{ type: 'text', text }] };
}

function toResult(whole: string): { result: string; truncated: boolean } {
  const { text: result, truncated } = cut(whole);
  return { result, truncated };
}

/** What the Messages API has answered instead of a message. */
function answerOf(error: unknown): { status: number | null; type: string; message: string } {
  if (!(error instanceof APIError)) return { status: null, type: '', message: '' };
  const { error: told } = Object(error.error) as { error?: { type?: unknown; message?: unknown } };
  const text = (word: unknown) => (typeof word === 'string' ? word : '');
  const status = (error.status as number | undefined) ?? null;
  return { status, type: text(told?.type), message: text(told?.message) };
}
