import { z } from 'zod';

/**
 * The lines of the CLI's stream that the parser knows, as far as it reads them. Their source is the Agent SDK's types
 * (`SDKMessage`) and what the real CLI was seen to send: see recordings/.
 */

/** Whatever has got hold of the CLI's stream may say anything in it: what goes into columns and sums has bounds. */
const Name = z.string().max(256);
const Count = z.int().min(0).max(1e12);
const Turns = z.int().min(0).max(1e6);
const Dollars = z.number().min(0).max(1e6);
const Milliseconds = z
  .number()
  .min(0)
  .max(24 * 3600 * 1000);
const Status = z.int().min(100).max(599);

const Tokens = Count.nullish();
const ApiUsageSchema = z.object({
  input_tokens: Tokens,
  output_tokens: Tokens,
  cache_read_input_tokens: Tokens,
  cache_creation_input_tokens: Tokens,
});
export type ApiUsage = z.infer<typeof ApiUsageSchema>;

const InitSchema = z.object({
  type: z.literal('system'),
  subtype: z.literal('init'),
  model: Name,
  claude_code_version: Name,
  session_id: Name,
});

const ApiRetrySchema = z.object({
  type: z.literal('system'),
  subtype: z.literal('api_retry'),
  retry_delay_ms: Milliseconds,
  /** Null where there was no HTTP answer. */
  error_status: Status.nullable(),
  error: z.string().optional(),
});

const StreamEventSchema = z.object({
  type: z.literal('stream_event'),
  parent_tool_use_id: z.string().nullish(),
  event: z.looseObject({ type: z.string() }),
  /** On `message_stop`: the message broke off, its blocks from this one on are void. */
  abandoned_blocks: z.object({ from_block_index: z.number() }).optional(),
});

const MessageStartSchema = z.object({
  type: z.literal('message_start'),
  message: z.object({ id: Name, usage: ApiUsageSchema.optional() }),
});
const TextDeltaSchema = z.object({
  type: z.literal('content_block_delta'),
  delta: z.object({ type: z.literal('text_delta'), text: z.string() }),
});
const ThinkingDeltaSchema = z.object({
  type: z.literal('content_block_delta'),
  delta: z.object({ type: z.literal('thinking_delta'), thinking: z.string() }),
});
const MessageDeltaSchema = z.object({
  type: z.literal('message_delta'),
  delta: z.object({ stop_reason: z.string().nullish() }),
  usage: ApiUsageSchema.optional(),
});

const BlockSchema = z.looseObject({ type: z.string() });
const AssistantSchema = z.object({
  type: z.literal('assistant'),
  parent_tool_use_id: z.string().nullish(),
  /** Why this is no message of the model but the CLI's own, about a failure. */
  error: z.string().optional(),
  message: z.object({
    id: Name,
    model: Name,
    content: z.array(BlockSchema),
    stop_reason: z.string().nullish(),
    usage: ApiUsageSchema.optional(),
  }),
});

export const TextBlockSchema = z.object({ type: z.literal('text'), text: z.string() });
export const ThinkingBlockSchema = z.object({ type: z.literal('thinking'), thinking: z.string() });
export const ToolUseBlockSchema = z.object({
  type: z.literal('tool_use'),
  id: Name,
  name: Name,
  input: z.unknown(),
});
const ToolResultBlockSchema = z.object({
  type: z.literal('tool_result'),
  tool_use_id: Name,
  content: z.union([z.string(), z.array(BlockSchema)]).optional(),
  is_error: z.boolean().optional(),
});

const MediaBlockSchema = z.object({ source: z.object({ media_type: z.string() }) });

const UserSchema = z.object({
  type: z.literal('user'),
  parent_tool_use_id: z.string().nullish(),
  message: z.object({ content: z.union([z.string(), z.array(BlockSchema)]) }),
});

const ModelUsageSchema = z.object({
  inputTokens: Count,
  outputTokens: Count,
  cacheReadInputTokens: Count,
  cacheCreationInputTokens: Count,
});

const ResultSchema = z.object({
  type: z.literal('result'),
  subtype: z.string(),
  is_error: z.boolean(),
  api_error_status: Status.nullish(),
  result: z.string().optional(),
  structured_output: z.unknown().optional(),
  errors: z.array(z.string()).optional(),
  num_turns: Turns,
  stop_reason: z.string().nullish(),
  terminal_reason: z.string().optional(),
  startup_failure_reason: z.string().optional(),
  total_cost_usd: Dollars,
  modelUsage: z.record(z.string(), ModelUsageSchema),
  permission_denials: z.array(z.object({ tool_name: Name, tool_use_id: Name, tool_input: z.unknown() })),
});
export type ResultLine = z.infer<typeof ResultSchema>;

export type StreamEventLine = z.infer<typeof StreamEventSchema>;
export type AssistantLine = z.infer<typeof AssistantSchema>;
export type UserLine = z.infer<typeof UserSchema>;
export type ApiRetryLine = z.infer<typeof ApiRetrySchema>;
export type InitLine = z.infer<typeof InitSchema>;
export type CliLine = InitLine | ApiRetryLine | StreamEventLine | AssistantLine | UserLine | ResultLine;

const SCHEMAS = new Map<string, z.ZodType<CliLine>>([
  ['system/init', InitSchema],
  ['system/api_retry', ApiRetrySchema],
  ['stream_event', StreamEventSchema],
  ['assistant', AssistantSchema],
  ['user', UserSchema],
  ['result', ResultSchema],
]);

/** `system/init`, `assistant`, …; empty for what is no line at all. */
export function lineKind(line: unknown): string {
  if (typeof line !== 'object' || line === null || !('type' in line)) return '';
  const { type } = line;
  return type === 'system' && 'subtype' in line ? `system/${String(line.subtype)}` : String(type);
}

/** A line that the parser knows, or null. */
export function readLine(line: unknown): CliLine | null {
  return SCHEMAS.get(lineKind(line))?.safeParse(line).data ?? null;
}

/** The tool results among a user message's blocks. */
export function toolResults({
  message,
}: UserLine): { toolUseId: string; content: string; isError: boolean }[] {
  if (typeof message.content === 'string') return [];
  return message.content.flatMap((block) => {
    const result = ToolResultBlockSchema.safeParse(block).data;
    if (!result) return [];
    const { tool_use_id: toolUseId, content = '', is_error: isError = false } = result;
    return [{ toolUseId, content: typeof content === 'string' ? content : blocksText(content), isError }];
  });
}

function blocksText(blocks: z.infer<typeof BlockSchema>[]): string {
  return blocks
    .map((block) => TextBlockSchema.safeParse(block).data?.text ?? `[${mediaType(block)}]`)
    .join('\n');
}

function mediaType(block: z.infer<typeof BlockSchema>): string {
  return MediaBlockSchema.safeParse(block).data?.source.media_type ?? block.type;
}

type StreamStep =
  | { kind: 'start'; messageId: string; usage: ApiUsage }
  | { kind: 'text' | 'thinking'; text: string }
  | { kind: 'delta'; stopReason: string | null; usage: ApiUsage }
  | { kind: 'stop'; isBrokenOff: boolean };

/** What a stream event means to the parser; null for those that say nothing it needs (block starts, tool input, pings). */
export function readStreamStep({ event, abandoned_blocks: abandoned }: StreamEventLine): StreamStep | null {
  switch (event.type) {
    case 'message_start': {
      const message = MessageStartSchema.safeParse(event).data?.message;
      return message ? { kind: 'start', messageId: message.id, usage: message.usage ?? {} } : null;
    }
    case 'content_block_delta': {
      const text = TextDeltaSchema.safeParse(event).data?.delta.text;
      if (text !== undefined) return { kind: 'text', text };
      const thinking = ThinkingDeltaSchema.safeParse(event).data?.delta.thinking;
      return thinking === undefined ? null : { kind: 'thinking', text: thinking };
    }
    case 'message_delta': {
      const delta = MessageDeltaSchema.safeParse(event).data;
      return delta
        ? { kind: 'delta', stopReason: delta.delta.stop_reason ?? null, usage: delta.usage ?? {} }
        : null;
    }
    case 'message_stop':
      return { kind: 'stop', isBrokenOff: abandoned !== undefined };
    default:
      return null;
  }
}
