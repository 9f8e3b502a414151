import { type ContentBlock, isRecord, type RequestMessage } from './request-body.js';

/** What a tool gave back, as the client reports it. */
export interface ToolResult {
  readonly toolUseId: string;
  /** Its text blocks, joined by newlines; '' where it has none. */
  readonly text: string;
  readonly isError: boolean;
}

/** Where a conversation stands when the API is asked to go on with it. */
export interface Standing {
  /** What the user typed last, as typed; null if nobody typed anything. */
  readonly prompt: string | null;
  /** Messages of the assistant since then: 0 when the prompt is new. */
  readonly turn: number;
  /** What the tools that were asked for last gave back; empty if none was since the prompt. */
  readonly lastToolResults: readonly ToolResult[];
}

/**
 * Finds the user's prompt among what the Claude CLI sends with it.
 *
 * The CLI (2.1.330) puts blocks of its own before the prompt, sends the environment as a `system` message that may be
 * the last, and answers tools with `user` messages. It merges neighbouring `user` messages into one and ends each
 * merged text with a newline: so a prompt that failed or was interrupted stands before the next prompt, or before the note
 * to go on with it.
 */
export function standingOf(messages: readonly RequestMessage[]): Standing {
  for (let index = messages.length - 1; index >= 0; index--) {
    const message = messages[index];
    const prompt = message?.role === 'user' ? typedIn(message) : null;
    if (prompt !== null) return standingAt(index, prompt, messages);
  }
  const lastUser = messages.findLastIndex(
    (message) => message.role === 'user' && textsOf(message).length > 0,
  );
  const last = messages[lastUser];
  // Nothing looks typed, so the user typed something that looks like the CLI's own.
  return last
    ? standingAt(lastUser, textsOf(last).at(-1) ?? null, messages)
    : { prompt: null, turn: 0, lastToolResults: [] };
}

function standingAt(index: number, prompt: string | null, messages: readonly RequestMessage[]): Standing {
  const since = messages.slice(index + 1);
  const lastResult = since.findLastIndex((message) => toolResultsIn(message).length > 0);
  const asked = since
    .slice(0, Math.max(0, lastResult))
    .findLastIndex((message) => message.role === 'assistant');
  const results = since.slice(asked + 1).flatMap(toolResultsIn);
  const turn = since.filter((message) => message.role === 'assistant').length;
  return { prompt, turn, lastToolResults: results };
}

/** The last run of typed texts in a message, or null. A text that ends in a newline ends a prompt: see above. */
function typedIn(message: RequestMessage): string | null {
  if (typeof message.content === 'string') return isTheClis(message.content) ? null : message.content;
  let run: string[] = [];
  let isOver = false;
  for (const block of message.content) {
    if (block.type !== 'text' && block.type !== 'tool_result') continue;
    const typed = block.type === 'text' && !isTheClis(textOf(block)) ? textOf(block) : null;
    if (typed === null) {
      isOver = run.length > 0;
      continue;
    }
    run = isOver || run.at(-1)?.endsWith('\n') ? [typed] : [...run, typed];
    isOver = false;
  }
  if (run.length === 0) return null;
  const typed = run.join('\n');
  const wasMerged = isOver && typed.endsWith('\n');
  return wasMerged ? typed.slice(0, -1) : typed;
}

/** Tags in which the CLI wraps whole blocks of its own. */
const CLI_TAGS: readonly (readonly [open: string, close: string])[] = [
  ['<system-reminder>', '</system-reminder>'],
  ['<local-command-caveat>', '</local-command-caveat>'],
  ['<local-command-stdout>', '</local-command-stdout>'],
  ['<local-command-stderr>', '</local-command-stderr>'],
  ['<command-name>', '</command-args>'],
];

/** What the CLI, or whoever runs it, says between two prompts without a tag. */
const CLI_NOTES: ReadonlySet<string> = new Set([
  '[Request interrupted by user]',
  '[Request interrupted by user for tool use]',
  'Tool loaded.',
  '[structured-output-enforce] You MUST call the StructuredOutput tool to complete this request. Call this tool now.',
  'Continue from where you left off.',
  'Your turn was interrupted by the server, not by the user. Continue from where you left off.',
]);

function isTheClis(text: string): boolean {
  const end = text.trimEnd();
  const isWrapped = CLI_TAGS.some(
    ([open, close]) => end.startsWith(open) && end.indexOf(close) === end.length - close.length,
  );
  return isWrapped || CLI_NOTES.has(end);
}

function textsOf(message: RequestMessage): string[] {
  if (typeof message.content === 'string') return [message.content];
  return message.content.filter((block) => block.type === 'text').map(textOf);
}

function textOf(block: ContentBlock): string {
  return typeof block.text === 'string' ? block.text : '';
}

function toolResultsIn(message: RequestMessage): ToolResult[] {
  if (typeof message.content === 'string') return [];
  return message.content
    .filter((block) => block.type === 'tool_result')
    .map((block) => ({
      toolUseId: typeof block.tool_use_id === 'string' ? block.tool_use_id : '',
      text: resultText(block.content),
      isError: block.is_error === true,
    }));
}

function resultText(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  const texts = content.map((block: unknown) => (isRecord(block) ? block.text : undefined));
  return texts.filter((text) => typeof text === 'string').join('\n');
}
