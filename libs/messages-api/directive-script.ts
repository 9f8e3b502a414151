import {
  type Answer,
  cutAfter,
  errorAfter,
  errorAnswer,
  hangAnswer,
  type MessageAnswer,
  type MessageOptions,
  textAnswer,
  toolAnswer,
} from './answer.js';
import { type Directives, type Failure, readDirectives } from './directives.js';
import type { Script, ScriptedRequest } from './script.js';
import { splitText } from './split-text.js';

const ECHOED_CHARACTERS = 500;
const PROMPTS_COUNTED = 1000;

/**
 * The script that prompts steer: see `readDirectives` for the language. A prompt without a directive gets an answer
 * that says what it is and repeats the start of the prompt.
 * @param options.demoDeltaMs milliseconds between the words of that answer, for demo mode to look alive; 0 unless told
 */
export function createDirectiveScript(options: { demoDeltaMs?: number } = {}): Script {
  const failures = new FailureCount();
  return (request) => {
    const directives = readDirectives(request.prompt);
    const failure = failures.next(request.prompt, directives.failure);
    if (failure?.kind === 'hang') return hangAnswer();
    if (failure?.kind === 'status') {
      const retryAfter = failure.retryAfterS === null ? {} : { retryAfterS: failure.retryAfterS };
      return errorAnswer(failure.status, retryAfter);
    }
    const answer = answerOf(request, directives, options.demoDeltaMs ?? 0);
    return failure ? breakAnswer(failure, answer) : answer;
  };
}

/** How often each prompt has come, as far as it may fail, for `times=` and `after=`. */
class FailureCount {
  readonly #come = new Map<string, number>();

  /** The failure that is due for a request with this prompt, or null. */
  next(prompt: string, failure: Failure | null): Failure | null {
    if (failure === null) return null;
    const first = failure.kind === 'hang' ? failure.after : 0;
    const end = first + failure.times;
    const come = this.#come.get(prompt) ?? 0;
    if (come < end) this.#count(prompt, come + 1);
    return come >= first && come < end ? failure : null;
  }

  #count(prompt: string, come: number): void {
    this.#come.set(prompt, come);
    const [oldest] = this.#come.keys();
    if (this.#come.size > PROMPTS_COUNTED && oldest !== undefined) this.#come.delete(oldest);
  }
}

function breakAnswer(failure: Exclude<Failure, { kind: 'status' | 'hang' }>, answer: MessageAnswer): Answer {
  return failure.kind === 'cut' ? cutAfter(failure.afterDeltas, answer) : errorAfter(1, failure.type, answer);
}

function answerOf(request: ScriptedRequest, directives: Directives, demoDeltaMs: number): MessageAnswer {
  const options: MessageOptions = {
    delayMs: directives.delayMs,
    deltaMs: directives.deltas?.apartMs ?? 0,
    usage: directives.usage,
    ...(directives.thinking !== null && request.turn === 0 ? { thinking: directives.thinking } : {}),
  };
  const tool = directives.tools[request.turn];
  if (tool) return toolAnswer(tool.name, tool.input, options);

  const text = textOf(request, directives);
  const count = directives.deltas?.count;
  if (text !== null) return textAnswer(splitText(text, count), options);
  if (count !== undefined) return textAnswer(madeUpWords(count), options);
  return textAnswer(demoText(request.prompt), { ...options, deltaMs: demoDeltaMs });
}

function textOf({ prompt, lastToolResults }: ScriptedRequest, directives: Directives): string | null {
  if (directives.doesEcho) return prompt;
  if (directives.text !== null) return directives.text;
  if (directives.tools.length === 0) return null;
  const results = lastToolResults.map(
    ({ text, isError }) => `The tool ${isError ? 'failed' : 'said'}: ${text}`,
  );
  return results.length === 0 ? 'The tool said nothing.' : results.join('\n');
}

function madeUpWords(count: number): string[] {
  return Array.from({ length: count }, (_, index) => (index === 0 ? 'word-1' : ` word-${index + 1}`));
}

function demoText(prompt: string): string {
  const characters = Array.from(prompt);
  const start = characters.slice(0, ECHOED_CHARACTERS).join('');
  const quoted = characters.length > ECHOED_CHARACTERS ? `${start}…` : start;
  return [
    'Hello! This is demo mode: a scripted answer, no model was asked.',
    'Everything else is real: the queue, the Claude CLI, the stream you are reading.',
    `\n\nYou wrote:\n\n${quoted}`,
  ].join(' ');
}
