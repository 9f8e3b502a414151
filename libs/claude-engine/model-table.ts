import { type Usage } from './engine-event.js';

/** US dollars for a million tokens. */
interface Price {
  input: number;
  output: number;
  cacheRead: number;
  cacheCreation: number;
  /** A prompt of more tokens, those of the cache included, makes all of its request dearer by this factor. */
  long?: { aboveTokens: number; factor: number };
}

export interface Model {
  price: Price;
  /** As many as the CLI asks for. */
  maxOutputTokens: number;
}

/** What the CLI takes for a model that it is not told, or does not know. */
export const DEFAULT_MODEL = 'claude-opus-5-5';

const ALIASES: ReadonlyMap<string, string> = new Map([
  ['opus', 'claude-opus-5-5'],
  ['sonnet', 'claude-sonnet-5-5'],
  ['haiku', 'claude-haiku-5-5'],
]);

const price = (input: number, output: number, cacheRead: number): Price => ({
  input,
  output,
  cacheRead,
  cacheCreation: input * 1.25,
});
const OPUS_5_5 = { price: price(4, 20, 0.2), maxOutputTokens: 128_000 };
const HAIKU_5_5 = { ...price(0.1, 0.5, 0.01), long: { aboveTokens: 100_000, factor: 5 } };

/**
 * The prices and limits of the Claude CLI 2.1.330, as it reckoned them on 2026-11-27 for requests to a scripted API; a test
 * holds the table against the CLI. The CLI reckons a model that it does not know like its default one, with fewer tokens.
 */
const MODELS: ReadonlyMap<string, Model> = new Map([
  [DEFAULT_MODEL, OPUS_5_5],
  ['claude-sonnet-5-5', { price: price(2, 10, 0.1), maxOutputTokens: 128_000 }],
  ['claude-haiku-5-5', { price: HAIKU_5_5, maxOutputTokens: 128_000 }],
  ['claude-opus-5', { price: price(5, 25, 0.5), maxOutputTokens: 64_000 }],
  ['claude-sonnet-5', { price: price(2, 10, 0.2), maxOutputTokens: 64_000 }],
  ['claude-opus-4-8', { price: price(5, 25, 0.5), maxOutputTokens: 64_000 }],
  ['claude-opus-4-7', { price: price(5, 25, 0.5), maxOutputTokens: 64_000 }],
  ['claude-opus-4-6', { price: price(5, 25, 0.5), maxOutputTokens: 64_000 }],
  ['claude-opus-4-5', { price: price(5, 25, 0.5), maxOutputTokens: 32_000 }],
  ['claude-sonnet-4-6', { price: price(3, 15, 0.3), maxOutputTokens: 32_000 }],
  ['claude-sonnet-4-5', { price: price(3, 15, 0.3), maxOutputTokens: 32_000 }],
  ['claude-haiku-4-5', { price: price(1, 5, 0.1), maxOutputTokens: 32_000 }],
]);
const UNKNOWN: Model = { ...OPUS_5_5, maxOutputTokens: 32_000 };

/** The model that a name or an alias (`opus`, `sonnet`, `haiku`) means. */
export const fullModelName = (name: string): string => ALIASES.get(name) ?? name;

/** @param name full, with or without the day of its release */
export function modelOf(name: string): Model {
  return MODELS.get(name) ?? MODELS.get(name.replace(/-\d{8}$/, '')) ?? UNKNOWN;
}

/** US dollars, of one request. */
export function costOf(model: Model, usage: Usage): number {
  const { long } = model.price;
  const { inputTokens, cacheReadInputTokens, cacheCreationInputTokens } = usage;
  const promptTokens = inputTokens + cacheReadInputTokens + cacheCreationInputTokens;
  const factor = long && promptTokens > long.aboveTokens ? long.factor : 1;
  return factor * costOfAll(model, usage);
}

/** US dollars, of requests of which only the sum is known: none is taken to have been a long one. */
export function costOfAll({ price: each }: Model, usage: Usage): number {
  const { inputTokens, outputTokens, cacheReadInputTokens, cacheCreationInputTokens } = usage;
  const sum =
    inputTokens * each.input +
    outputTokens * each.output +
    cacheReadInputTokens * each.cacheRead +
    cacheCreationInputTokens * each.cacheCreation;
  return sum / 1_000_000;
}
