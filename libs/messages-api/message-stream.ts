import type { AnswerBlock, MessageAnswer, Usage } from './answer.js';
import type { Message, MessageDeltaUsage, RawContentBlockDelta, RawMessageStreamEvent } from './anthropic.js';
import { splitText } from './split-text.js';

/** What a message carries besides its answer. */
export interface Envelope {
  /** `msg_…` */
  readonly id: string;
  /** The model that was asked for. */
  readonly model: string;
  /** Size of the request in bytes, for the estimate of its input tokens. */
  readonly requestBytes: number;
}

/** One step of streaming a message: something to send, a pause, or the end of the connection. */
type Step =
  | { kind: 'event'; event: RawMessageStreamEvent | PingEvent | ErrorEvent }
  | { kind: 'wait'; ms: number }
  | { kind: 'cut' };

interface PingEvent {
  type: 'ping';
}

interface ErrorEvent {
  type: 'error';
  error: { type: string; message: string };
}

const BYTES_PER_TOKEN = 4;
/** Whoever sends thinking back gets it accepted: nothing verifies this. */
const SIGNATURE = Buffer.from('scripted thinking, signed by nobody').toString('base64');

/**
 * A message as a stream, event by event.
 * Source: "Streaming messages" of Anthropic's API documentation.
 */
export function* streamSteps(answer: MessageAnswer, envelope: Envelope): Generator<Step, void> {
  const usage = usageOf(answer, envelope);
  const start = { ...emptyMessage(envelope), usage: { ...wireUsage(usage), output_tokens: 1 } };
  yield send({ type: 'message_start', message: start });
  yield send({ type: 'ping' });
  yield { kind: 'wait', ms: answer.delayMs };
  let sent = 0;
  for (const [index, block] of answer.blocks.entries()) {
    yield send({ type: 'content_block_start', index, content_block: wireBlock(block, 'empty') });
    for (const delta of deltasOf(block)) {
      if (answer.break && sent >= answer.break.afterDeltas) return yield* breakOff(answer.break);
      if (sent > 0) yield { kind: 'wait', ms: answer.deltaMs };
      yield send({ type: 'content_block_delta', index, delta });
      sent++;
    }
    if (block.kind === 'thinking') {
      const delta = { type: 'signature_delta', signature: SIGNATURE } as const;
      yield send({ type: 'content_block_delta', index, delta });
    }
    yield send({ type: 'content_block_stop', index });
  }
  if (answer.break) return yield* breakOff(answer.break);
  yield send({ type: 'message_delta', delta: stopOf(answer), usage: deltaUsage(usage) });
  yield send({ type: 'message_stop' });
}

/** The same message in one piece, for a request that does not stream. */
export function wholeMessage(answer: MessageAnswer, envelope: Envelope): Message {
  return {
    ...emptyMessage(envelope),
    content: answer.blocks.map((block) => wireBlock(block, 'whole')),
    stop_reason: answer.stopReason,
    usage: wireUsage(usageOf(answer, envelope)),
  };
}

/** How long the message would take as a stream, in ms. */
export function durationMsOf(answer: MessageAnswer): number {
  const deltas = answer.blocks.reduce((count, block) => count + deltasOf(block).length, 0);
  return answer.delayMs + Math.max(0, deltas - 1) * answer.deltaMs;
}

/** Tokens of so many bytes, roughly, as nobody counts them here. */
export function estimateTokens(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / BYTES_PER_TOKEN));
}

function send(event: RawMessageStreamEvent | PingEvent | ErrorEvent): Step {
  return { kind: 'event', event };
}

function* breakOff(broken: NonNullable<MessageAnswer['break']>): Generator<Step, void> {
  if (broken.kind === 'cut') yield { kind: 'cut' };
  else yield send({ type: 'error', error: { type: broken.type, message: broken.message } });
}

function deltasOf(block: AnswerBlock): RawContentBlockDelta[] {
  switch (block.kind) {
    case 'text':
      return block.deltas.map((text) => ({ type: 'text_delta', text }));
    case 'thinking':
      return block.deltas.map((thinking) => ({
        type: 'thinking_delta',
        thinking,
        estimated_tokens: null,
      }));
    case 'tool_use':
      return ['', ...splitText(JSON.stringify(block.input))].map((json) => ({
        type: 'input_json_delta',
        partial_json: json,
      }));
  }
}

/** A block as it starts in a stream, empty, or as it stands in a message, whole. */
function wireBlock(block: AnswerBlock, fill: 'empty' | 'whole'): Message['content'][number] {
  const isWhole = fill === 'whole';
  switch (block.kind) {
    case 'text':
      return { type: 'text', text: isWhole ? block.deltas.join('') : '', citations: null };
    case 'thinking':
      return {
        type: 'thinking',
        thinking: isWhole ? block.deltas.join('') : '',
        signature: isWhole ? SIGNATURE : '',
      };
    case 'tool_use':
      return {
        type: 'tool_use',
        id: block.id,
        name: block.name,
        input: isWhole ? block.input : {},
        caller: { type: 'direct' },
      };
  }
}

function emptyMessage({ id, model }: Envelope): Omit<Message, 'usage'> {
  return {
    id,
    type: 'message',
    role: 'assistant',
    model,
    content: [],
    container: null,
    diagnostics: null,
    stop_details: null,
    stop_reason: null,
    stop_sequence: null,
  };
}

function stopOf(answer: MessageAnswer) {
  return { stop_reason: answer.stopReason, stop_sequence: null, stop_details: null, container: null };
}

function usageOf(answer: MessageAnswer, envelope: Envelope): Usage {
  const bytes = answer.blocks.reduce((sum, block) => sum + Buffer.byteLength(contentOf(block)), 0);
  return {
    inputTokens: estimateTokens(envelope.requestBytes),
    outputTokens: estimateTokens(bytes),
    cacheReadTokens: 0,
    cacheCreationTokens: 0,
    ...answer.usage,
  };
}

function contentOf(block: AnswerBlock): string {
  return block.kind === 'tool_use' ? JSON.stringify(block.input) : block.deltas.join('');
}

function wireUsage(usage: Usage): Message['usage'] {
  return {
    ...deltaUsage(usage),
    input_tokens: usage.inputTokens,
    cache_creation: {
      ephemeral_5m_input_tokens: usage.cacheCreationTokens,
      ephemeral_1h_input_tokens: 0,
    },
    inference_geo: null,
    service_tier: 'standard',
    speed: null,
  };
}

function deltaUsage(usage: Usage): MessageDeltaUsage {
  return {
    input_tokens: usage.inputTokens,
    output_tokens: usage.outputTokens,
    cache_read_input_tokens: usage.cacheReadTokens,
    cache_creation_input_tokens: usage.cacheCreationTokens,
    output_tokens_details: null,
    server_tool_use: null,
  };
}
