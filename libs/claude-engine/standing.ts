import { z } from 'zod';
import { cut } from './bounded-text.js';
import { type Ending, type StopReason } from './engine-event.js';
import { NO_USAGE } from './open-message.js';
import { INTERRUPTED } from './spoken-message.js';
import { type KeptTranscript, type TranscriptEntry } from './transcript.js';

/**
 * How far a conversation has come with a prompt. `new`: it does not hold it. `cut_off`: the launch that was asked is gone, and
 * the CLI can tell where it was. `stopped`: it was told to stop, or went away in the middle of what it said. `answered`: only
 * the ending was lost.
 */
export type Standing = { kind: 'new' | 'cut_off' | 'stopped' } | ({ kind: 'answered' } & KeptAnswer);

export interface KeptAnswer {
  result: string;
  stopReason: StopReason;
  numTurns: number;
  model: string | null;
}

/** In the API's words: what ends a turn for good. After anything else the CLI would go on. */
const LAST_WORDS = new Map<string, StopReason>([
  ['end_turn', 'end_turn'],
  ['stop_sequence', 'end_turn'],
  ['refusal', 'refusal'],
]);

const BlockSchema = z.looseObject({ type: z.string(), text: z.string().optional() });
/** What was said, as far as it is read here; its source is what the real CLI was seen to write. */
const SpokenSchema = z.object({
  type: z.enum(['user', 'assistant']),
  isSidechain: z.literal(false).optional(),
  /** The CLI's own words about a failure are no answer. */
  isApiErrorMessage: z.literal(false).optional(),
  message: z.object({
    id: z.string().optional(),
    model: z.string().optional(),
    stop_reason: z.string().nullish(),
    content: z
      .union([z.string(), z.array(BlockSchema)])
      .transform((content) => (typeof content === 'string' ? [{ type: 'text', text: content }] : content)),
  }),
});
type Spoken = z.output<typeof SpokenSchema>;

/** @param promptId the uuid of the prompt's entry */
export function standingOf(kept: KeptTranscript | null, promptId: string): Standing {
  const entries = kept?.parts.find(({ subpath }) => subpath === '')?.entries ?? [];
  const asked = entries.findIndex(({ uuid }) => uuid === promptId);
  if (asked < 0) return { kind: 'new' };
  const spoken = entries.slice(asked).flatMap(asSpoken);
  const last = spoken.at(-1);
  if (!last) return { kind: 'cut_off' };
  if (last.type === 'user') return { kind: INTERRUPTED.test(textOf(last)) ? 'stopped' : 'cut_off' };
  const doesAct = last.message.content.some(({ type }) => type === 'tool_use');
  if (doesAct || textOf(last) === '') return { kind: 'cut_off' };
  const stopReason = LAST_WORDS.get(last.message.stop_reason ?? '');
  return stopReason ? { kind: 'answered', ...answerOf(spoken, last, stopReason) } : { kind: 'stopped' };
}

function answerOf(spoken: Spoken[], last: Spoken, stopReason: StopReason): KeptAnswer {
  const answers = spoken.filter(({ type }) => type === 'assistant');
  const { id, model = null } = last.message;
  return {
    // Each block of a message is an entry of its own.
    result: answers
      .filter(({ message }) => message.id === id)
      .map(textOf)
      .join(''),
    stopReason,
    numTurns: new Set(answers.map(({ message }) => message.id)).size,
    model,
  };
}

/** Of a run that found its prompt answered: it has asked nobody. */
export function endingOfKept({ result: whole, stopReason, numTurns, model }: KeptAnswer): Ending {
  const { text: result, truncated } = cut(whole);
  const figures = { stopReason, usage: NO_USAGE, costUsd: 0, numTurns, model, permissionDenials: [] };
  return { kind: 'completed', result, truncated, structuredResult: null, ...figures };
}

const asSpoken = (entry: TranscriptEntry): Spoken[] => {
  const spoken = SpokenSchema.safeParse(entry).data;
  return spoken ? [spoken] : [];
};

const textOf = ({ message }: Spoken): string => message.content.map(({ text = '' }) => text).join('');
