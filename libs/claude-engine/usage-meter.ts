import { type IncomingHttpHeaders } from 'node:http';
import { type Usage } from './engine-event.js';
import { addUsage, NO_USAGE } from './open-message.js';

/** Longer lines of a stream hold no figures. */
const MAX_LINE_BYTES = 1024 * 1024;
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
const MAX_TOKENS = 1e12;

/** The API's names of the figures, by ours. */
const FIGURES = {
  inputTokens: 'input_tokens',
  outputTokens: 'output_tokens',
  cacheReadInputTokens: 'cache_read_input_tokens',
  cacheCreationInputTokens: 'cache_creation_input_tokens',
} as const satisfies Record<keyof Usage, string>;

/** Counts the tokens that the API says an answer took, while it passes. An answer that breaks off took what it had said. */
export class UsageMeter {
  private past = NO_USAGE;
  private readonly passing = new Set<AnswerUsage>();

  /** Of all answers so far. */
  get total(): Usage {
    return [...this.passing].map(({ usage }) => usage).reduce(addUsage, this.past);
  }

  /** @returns what is to be shown each piece of the answer, and told its end */
  begin(headers: IncomingHttpHeaders): { see(chunk: Buffer): void; end(): void } {
    const answer = new AnswerUsage((headers['content-type'] ?? '').startsWith('text/event-stream'));
    this.passing.add(answer);
    return {
      see: (chunk) => answer.see(chunk),
      end: () => {
        answer.end();
        if (this.passing.delete(answer)) this.past = addUsage(this.past, answer.usage);
      },
    };
  }
}

/** The figures of one answer: of a stream, the last that were told; else those of the whole. */
class AnswerUsage {
  usage = NO_USAGE;
  private pieces: Buffer[] = [];
  private bytes = 0;
  private isTooLong = false;

  constructor(private readonly isStream: boolean) {}

  see(chunk: Buffer): void {
    if (!this.isStream) {
      this.keep(chunk, MAX_ANSWER_BYTES);
      return;
    }
    let from = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
      this.keep(chunk.subarray(from, end), MAX_LINE_BYTES);
      const line = this.take();
      if (line.startsWith('data:') && line.includes('"usage"')) this.read(line.slice(5));
      from = end + 1;
    }
    this.keep(chunk.subarray(from), MAX_LINE_BYTES);
  }

  end(): void {
    const rest = this.take();
    if (!this.isStream) this.read(rest);
  }

  private keep(piece: Buffer, limit: number): void {
    this.bytes += piece.length;
    this.isTooLong ||= this.bytes > limit;
    if (this.isTooLong) this.pieces = [];
    else this.pieces.push(piece);
  }

  private take(): string {
    const text = Buffer.concat(this.pieces).toString();
    [this.pieces, this.bytes, this.isTooLong] = [[], 0, false];
    return text;
  }

  private read(json: string): void {
    try {
      const said = Object(JSON.parse(json)) as { usage?: unknown; message?: { usage?: unknown } };
      const told = Object(said.usage ?? said.message?.usage) as Record<string, unknown>;
      const figure = (ours: keyof Usage) => tokens(told[FIGURES[ours]]) ?? this.usage[ours];
      this.usage = {
        inputTokens: figure('inputTokens'),
        outputTokens: figure('outputTokens'),
        cacheReadInputTokens: figure('cacheReadInputTokens'),
        cacheCreationInputTokens: figure('cacheCreationInputTokens'),
      };
    } catch {
      // An error in plain text, or half of an answer.
    }
  }
}

function tokens(value: unknown): number | null {
  const isCount = Number.isInteger(value) && Number(value) >= 0 && Number(value) <= MAX_TOKENS;
  return isCount ? Number(value) : null;
}
