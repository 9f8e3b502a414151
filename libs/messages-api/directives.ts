import { type ErrorType, isErrorType, type Usage } from './answer.js';
import { isRecord } from './request-body.js';

/** What a prompt asks of the stand-in. A field is null, empty or false where no directive speaks of it. */
export interface Directives {
  /** Several are joined by newlines. */
  text: string | null;
  thinking: string | null;
  /** Milliseconds before the first delta. */
  delayMs: number;
  deltas: { count: number; apartMs: number } | null;
  /** Asked for one after the other, one a turn. */
  tools: readonly { name: string; input: Readonly<Record<string, unknown>> }[];
  usage: Partial<Usage>;
  doesEcho: boolean;
  failure: Failure | null;
}

/** `times`: how many requests with this prompt fail before it is answered. Infinite unless told. */
export type Failure = { times: number } & (
  | { kind: 'status'; status: number; retryAfterS: number | null }
  | { kind: 'cut'; afterDeltas: number }
  | { kind: 'error'; type: ErrorType }
  /** `after`: how many requests are answered before. */
  | { kind: 'hang'; after: number }
);

/**
 * Reads the directives of a prompt. Each stands on a line of its own, from its first character to its last;
 * a line that is not exactly a directive is text. Said twice, the later one counts (`text` and `tool` add up).
 *
 * | directive | the answer |
 * |---|---|
 * | `[[text Hello there]]` | says this |
 * | `[[echo]]` | says the prompt itself, directives and all, character for character |
 * | `[[think Some thought]]` | thinks this first |
 * | `[[delay 500]]` | waits 500 ms before its first delta |
 * | `[[deltas 20 50]]` | comes in 20 deltas, 50 ms apart: its text cut in 20 (fewer if shorter), else 20 made-up words |
 * | `[[tool Write {"file_path":"a.txt","content":"hi"}]]` | asks for the tool, then tells its result; several: in turn |
 * | `[[usage in=10 out=5 cache_read=2 cache_creation=1]]` | counts these tokens; any of the four |
 * | `[[status 529]]` | is this HTTP error, 400 to 599 |
 * | `[[status 429 retry-after=7 times=2]]` | … with this header (seconds), for the first 2 requests with this prompt |
 * | `[[cut 3]]`, `[[cut 3 times=1]]` | breaks off after 3 deltas: the connection is destroyed |
 * | `[[error overloaded_error]]`, `… times=1]]` | breaks off after its first delta with an `error` event |
 * | `[[hang]]`, `[[hang times=1]]` | never comes |
 * | `[[hang after=1 times=1]]` | … but for the first request with this prompt |
 */
export function readDirectives(prompt: string): Directives {
  const directives: Directives = {
    text: null,
    thinking: null,
    delayMs: 0,
    deltas: null,
    tools: [],
    usage: {},
    doesEcho: false,
    failure: null,
  };
  for (const line of prompt.split(/\r?\n/)) {
    const [, word, argument] = /^\[\[([a-z]+)(?: (.+))?\]\]$/u.exec(line) ?? [];
    if (word !== undefined) Object.assign(directives, READERS.get(word)?.(argument ?? '', directives));
  }
  return directives;
}

const MOST_MS = 600_000;
const MOST_DELTAS = 100_000;
const MOST_TOKENS = 1_000_000_000;

/** A directive's argument → what it changes; null if it is malformed. */
type Reader = (argument: string, sofar: Directives) => Partial<Directives> | null;

const READERS: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  [
    'text',
    (text, { text: before }) =>
      text === '' ? null : { text: before === null ? text : `${before}\n${text}` },
  ],
  ['think', (thinking) => (thinking === '' ? null : { thinking })],
  ['echo', (nothing) => (nothing === '' ? { doesEcho: true } : null)],
  ['hang', readHang],
  ['delay', readDelay],
  ['deltas', readDeltas],
  ['tool', readTool],
  ['usage', readUsage],
  ['status', readStatus],
  ['cut', readCut],
  ['error', readError],
]);

function readDelay(argument: string): Partial<Directives> | null {
  const delayMs = readCount(argument, MOST_MS);
  return delayMs === null ? null : { delayMs };
}

function readDeltas(argument: string): Partial<Directives> | null {
  const [first, second, ...rest] = argument.split(' ');
  const count = readCount(first, MOST_DELTAS);
  const apartMs = readCount(second, MOST_MS);
  if (!count || apartMs === null || rest.length > 0) return null;
  return { deltas: { count, apartMs } };
}

/** Deeper than any tool's input; JSON of any depth can be read, but not be written again. */
const MAX_INPUT_DEPTH = 64;

const isShallow = (value: unknown, depth = 0): boolean =>
  typeof value !== 'object' ||
  value === null ||
  (depth < MAX_INPUT_DEPTH && Object.values(value).every((inner) => isShallow(inner, depth + 1)));

function readTool(argument: string, { tools }: Directives): Partial<Directives> | null {
  const [, name, json = '{}'] = /^([\w-]{1,128})(?: (.+))?$/u.exec(argument) ?? [];
  const input = parseJson(json);
  return name !== undefined && isRecord(input) && isShallow(input)
    ? { tools: [...tools, { name, input }] }
    : null;
}

const USAGE_FIELDS: ReadonlyMap<string, keyof Usage> = new Map([
  ['in', 'inputTokens'],
  ['out', 'outputTokens'],
  ['cache_read', 'cacheReadTokens'],
  ['cache_creation', 'cacheCreationTokens'],
]);

function readUsage(argument: string): Partial<Directives> | null {
  const settings = readSettings(argument.split(' '), [...USAGE_FIELDS.keys()], MOST_TOKENS);
  if (settings === null) return null;
  const usage: Partial<Usage> = {};
  for (const [word, field] of USAGE_FIELDS) {
    const tokens = settings.get(word);
    if (tokens !== undefined) usage[field] = tokens;
  }
  return { usage };
}

function readStatus(argument: string): Partial<Directives> | null {
  const [first, ...rest] = argument.split(' ');
  const status = readCount(first, 599);
  const settings = readSettings(rest, ['retry-after', 'times'], MOST_MS);
  if (status === null || status < 400 || settings === null) return null;
  const retryAfterS = settings.get('retry-after') ?? null;
  return { failure: { kind: 'status', status, retryAfterS, times: settings.get('times') ?? Infinity } };
}

function readCut(argument: string): Partial<Directives> | null {
  const [first, ...rest] = argument.split(' ');
  const afterDeltas = readCount(first, MOST_DELTAS);
  const settings = readSettings(rest, ['times'], MOST_DELTAS);
  if (afterDeltas === null || settings === null) return null;
  return { failure: { kind: 'cut', afterDeltas, times: settings.get('times') ?? Infinity } };
}

function readHang(argument: string): Partial<Directives> | null {
  const settings = readSettings(argument === '' ? [] : argument.split(' '), ['after', 'times'], MOST_DELTAS);
  if (settings === null) return null;
  const { after = 0, times = Infinity } = Object.fromEntries(settings);
  return { failure: { kind: 'hang', after, times } };
}

function readError(argument: string): Partial<Directives> | null {
  const [type = '', ...rest] = argument.split(' ');
  const settings = readSettings(rest, ['times'], MOST_DELTAS);
  if (!isErrorType(type) || settings === null) return null;
  return { failure: { kind: 'error', type, times: settings.get('times') ?? Infinity } };
}

/** Words `name=number` → the numbers by name. Null if a name is not among `allowed` or comes twice. */
function readSettings(
  words: readonly string[],
  allowed: readonly string[],
  most: number,
): Map<string, number> | null {
  const settings = new Map<string, number>();
  for (const word of words) {
    const [name = '', value, ...rest] = word.split('=');
    const count = readCount(value, most);
    if (!allowed.includes(name) || settings.has(name) || count === null || rest.length > 0) return null;
    settings.set(name, count);
  }
  return settings;
}

/** A whole number in decimal digits from 0 to `most`, or null. */
function readCount(digits: string | undefined, most: number): number | null {
  if (digits === undefined || !/^(?:0|[1-9]\d*)$/.test(digits)) return null;
  return Number(digits) <= most ? Number(digits) : null;
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}
