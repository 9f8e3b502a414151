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
import { stopReasonOf } from './result-ending.js';
import { RunAbort } from './run-abort.js';
import { answerEntry, promptEntry } from './spoken-entry.js';
import { historyOf, type SaidMessage } from './spoken-history.js';
import { CONTINUATION } from './spoken-message.js';
import { endingOfKept } from './standing.js';
import { StallWatchdog } from './stall-watchdog.js';
import { endingOfStop, type StopCause } from './stop-cause.js';
import { StreamParser } from './stream-parser.js';
import { ANSWER_TOOL } from './supported-tools.js';
import { type TranscriptEntry } from './transcript.js';
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

/** One request, answered by the Messages API without a CLI: one message, or a few where it must match a schema. */
export class ApiRun {
  private readonly parser = new StreamParser();
  private readonly stopping = new AbortController();
  private readonly model: string;
  private readonly figures: Model;
  private cause: StopCause | null = null;
  private watchdog: StallWatchdog | null = null;
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
  }

  /** Ends the run; the first cause counts. */
  stop(cause: StopCause): void {
    this.cause ??= cause;
    this.stopping.abort();
  }

  async *events(): AsyncGenerator<EngineEvent, void, undefined> {
    const { signal } = this.context;
    const onAbort = () => this.stop(RunAbort.kindOf(signal.reason));
    const timeoutMs = Math.min(this.request.timeoutMs, LONGEST_TIMER_MS);
    const deadline = setTimeout(() => this.stop('timeout'), timeoutMs);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      yield { type: 'ended', ending: yield* this.perform() };
    } finally {
      this.stopping.abort();
      clearTimeout(deadline);
      signal.removeEventListener('abort', onAbort);
      this.watchdog?.stop();
    }
  }

  private async *perform(): AsyncGenerator<EngineEvent, Ending, undefined> {
    let proxy: KeyProxy | null = null;
    try {
      const conversation = await this.orStop(Conversation.of(this.request, this.context.transcript));
      if (conversation.standing.kind === 'answered') return endingOfKept(conversation.standing);
      const history = historyOf(conversation.entries);
      if (!history)
        throw new Ended(unavailable('This conversation has used tools: only the CLI goes on with it.'));
      const { upstream, models } = this.settings;
      proxy = await KeyProxy.open({ upstream, folder: null, models });
      await this.orStop(this.context.mayAsk?.().catch(() => this.stop('abandoned')) ?? Promise.resolve());
      const cliSessionId = conversation.cliSessionId ?? randomUUID();
      const { outputSchema } = this.request;
      if (outputSchema) this.schema = await schemaForModel(outputSchema);
      yield* this.say({ ...INIT, model: this.model, session_id: cliSessionId });
      return yield* this.converse(proxy, conversation, { history, cliSessionId });
    } catch (error) {
      if (this.cause) return endingOfStop(this.cause, this.partial(), this.parser);
      return this.failed(error);
    } finally {
      await proxy?.close();
    }
  }

  private async *converse(
    proxy: KeyProxy,
    conversation: Conversation,
    { history, cliSessionId }: { history: SaidMessage[]; cliSessionId: string },
  ): AsyncGenerator<EngineEvent, Ending, undefined> {
    const { promptId = randomUUID(), maxTurns = Infinity } = this.request;
    const question =
      conversation.question() ?? (history.at(-1)?.role === 'user' ? null : { text: CONTINUATION });
    const messages: Anthropic.MessageParam[] = [...history];
    if (question) messages.push({ role: 'user', content: [{ type: 'text', text: question.text }] });
    let parentUuid = conversation.entries.findLast(({ uuid }) => uuid !== undefined)?.uuid ?? null;
    if (question?.uuid !== undefined || conversation.standing.kind === 'new') {
      const entry = promptEntry({ cliSessionId, parentUuid }, { text: this.request.prompt, uuid: promptId });
      await this.keep(entry, cliSessionId);
      parentUuid = promptId;
    }
    const client = clientOf(proxy);
    this.watchdog = new StallWatchdog(this.settings.stallMs, () => this.stop('stalled'));
    for (let turns = 1; ; turns += 1) {
      const message = yield* this.ask(client, proxy, messages);
      const ending = await heldTo(this.request.outputSchema, this.endingOf(message, turns));
      const reaction = reactionTo(message, ending);
      if (this.schema) yield* this.say({ type: 'user', message: reaction });
      if (ending.kind === 'failed' && turns < ANSWER_TRIES) {
        if (turns >= maxTurns) throw new Ended(engineError('max_turns_reached'));
        messages.push({ role: 'assistant', content: message.content }, reaction);
        continue;
      }
      if (ending.kind === 'completed') {
        const { id, model, stop_reason: word, usage } = message;
        const stopReason = word === 'tool_use' ? 'end_turn' : word;
        const said = { id, model, text: ending.result, stopReason, usage };
        await this.keep(answerEntry({ cliSessionId, parentUuid }, said), cliSessionId);
      }
      return ending;
    }
  }

  /** One message, from however many tries. */
  private async *ask(
    client: Anthropic,
    proxy: KeyProxy,
    messages: Anthropic.MessageParam[],
  ): AsyncGenerator<EngineEvent, Message, undefined> {
    for (;;) {
      const before = this.parser.partial().usage;
      let message: Message | null = null;
      let failure: unknown = null;
      try {
        message = yield* this.stream(client, messages);
      } catch (error) {
        if (this.cause) throw error;
        failure = error;
      }
      this.pay(before);
      if (message) return message;
      yield* this.pause(failure, proxy);
    }
  }

  private async *stream(
    client: Anthropic,
    messages: Anthropic.MessageParam[],
  ): AsyncGenerator<EngineEvent, Message, undefined> {
    const stream = client.messages.stream(this.params(messages), { signal: this.stopping.signal });
    // Told by the loop as well.
    stream.on('error', () => undefined);
    for await (const event of stream) yield* this.say({ type: 'stream_event', event });
    const message = await stream.finalMessage();
    yield* this.say({ type: 'assistant', message });
    return message;
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
    await this.orStop(sleep(delayMs, undefined, { signal: this.stopping.signal }));
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

  private endingOf(message: Message, numTurns: number): Ending {
    const call = message.content.find((block) => block.type === 'tool_use');
    const structuredResult = this.request.outputSchema ? (call?.input ?? null) : null;
    const text = message.content.map((block) => (block.type === 'text' ? block.text : '')).join('');
    const stopReason = stopReasonOf(message.stop_reason ?? '');
    const { usage, model } = this.partial();
    return {
      kind: 'completed',
      ...toResult(structuredResult === null ? text : JSON.stringify(structuredResult)),
      structuredResult,
      stopReason,
      numTurns,
      usage: usage ?? NO_USAGE,
      costUsd: this.costUsd,
      permissionDenials: [],
      model,
    };
  }

  private async keep(entry: TranscriptEntry, cliSessionId: string): Promise<void> {
    const { transcript } = this.context;
    if (transcript) await this.orStop(transcript.append(cliSessionId, { subpath: '', entries: [entry] }));
  }

  private failed(reason: unknown): Ending {
    if (reason instanceof Ended) {
      const stopReason = LIMITS.get(reason.error.code) ?? null;
      return { kind: 'failed', error: reason.error, ...this.partial(), stopReason };
    }
    this.settings.onNotice({ kind: 'launch_failed', launchId: null, reason: String(reason) });
    return {
      kind: 'failed',
      error: unavailable('The Messages API could not be asked.', true),
      ...this.partial(),
    };
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
