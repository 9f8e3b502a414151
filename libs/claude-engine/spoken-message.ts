import { z } from 'zod';
import { cut } from './bounded-text.js';
import { TextBlockSchema, ThinkingBlockSchema, ToolUseBlockSchema, toolResults } from './cli-line.js';
import { type TranscriptEntry } from './transcript.js';

/** Asked in place of a prompt that the CLI holds already, where the CLI does not go on by itself. */
export const CONTINUATION =
  'Your turn was interrupted by the server, not by the user. Continue from where you left off.';

/** Noted when a turn is interrupted. */
export const INTERRUPTION = '[Request interrupted by user]';
/** What the CLI notes then. */
export const INTERRUPTED = /^\[Request interrupted by user( for tool use)?\]$/;

export type SpokenBlock =
  | { type: 'text'; text: string }
  | { type: 'thinking'; text: string }
  | { type: 'tool_use'; toolUseId: string; name: string; input: unknown }
  | {
      type: 'tool_result';
      toolUseId: string;
      /** Text only, as in the event of the same name. */
      content: string;
      isError: boolean;
      truncated: boolean;
    };

/** Something that was said in a conversation. A message of the model comes in as many as it has blocks. */
export interface SpokenMessage {
  /** Of the entry. That of a prompt is its `promptId`. */
  id: string;
  role: 'user' | 'assistant';
  model: string | null;
  /** ISO 8601 UTC. */
  createdAt: string;
  content: SpokenBlock[];
}

/** The CLI speaks for the model in its own notes. */
const NO_MODEL = '<synthetic>';

const unset = z.literal(false).optional();
const EntrySchema = z.object({
  type: z.enum(['user', 'assistant']),
  uuid: z.string(),
  timestamp: z.iso.datetime(),
  isMeta: unset,
  isSidechain: unset,
  isApiErrorMessage: unset,
  isCompactSummary: unset,
  message: z.object({
    model: z.string().optional(),
    content: z
      .union([z.string(), z.array(z.looseObject({ type: z.string() }))])
      .transform((content) => (typeof content === 'string' ? [{ type: 'text', text: content }] : content)),
  }),
});

/** What the user has said while a tool ran. */
const SaidMeanwhileSchema = z.object({
  type: z.literal('attachment'),
  timestamp: z.iso.datetime(),
  attachment: z.object({
    type: z.literal('queued_command'),
    source_uuid: z.string(),
    prompt: z.array(z.looseObject({ type: z.string() })),
  }),
});

/** Whether `spokenIn` may find something in an entry. */
export const mayBeSpoken = (entry: TranscriptEntry): boolean =>
  entry.type === 'user' || entry.type === 'assistant' || SaidMeanwhileSchema.safeParse(entry).success;

/** What an entry of a transcript says to a reader of the conversation; null for what the CLI notes for itself or the model. */
export function spokenIn(entry: TranscriptEntry): SpokenMessage | null {
  const meanwhile = SaidMeanwhileSchema.safeParse(entry).data;
  if (meanwhile) {
    const { source_uuid: id, prompt } = meanwhile.attachment;
    return {
      id,
      role: 'user',
      model: null,
      createdAt: meanwhile.timestamp,
      content: prompt.flatMap(asSpoken),
    };
  }
  const { uuid, type: role, timestamp, message } = EntrySchema.safeParse(entry).data ?? {};
  if (uuid === undefined || role === undefined || timestamp === undefined || message === undefined)
    return null;
  const { model = null } = message;
  const content = message.content.flatMap(asSpoken);
  if (model === NO_MODEL || content.length === 0) return null;
  return { id: uuid, role, model, createdAt: timestamp, content };
}

function asSpoken(block: { type: string }): SpokenBlock[] {
  const text = TextBlockSchema.safeParse(block).data?.text;
  if (text !== undefined) return isNote(text) ? [] : [{ type: 'text', text }];
  const thinking = ThinkingBlockSchema.safeParse(block).data?.thinking;
  if (thinking !== undefined) return thinking === '' ? [] : [{ type: 'thinking', text: thinking }];
  const call = ToolUseBlockSchema.safeParse(block).data;
  if (call) return [{ type: 'tool_use', toolUseId: call.id, name: call.name, input: call.input }];
  return toolResults({ type: 'user', message: { content: [block] } }).map((result) => {
    const { text: whole, truncated } = cut(result.content);
    return { type: 'tool_result', ...result, content: whole, truncated };
  });
}

const isNote = (text: string) => text === CONTINUATION || INTERRUPTED.test(text);
