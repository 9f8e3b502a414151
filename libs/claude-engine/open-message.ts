import { cut } from './bounded-text.js';
import { type ApiUsage } from './cli-line.js';
import { type EngineEvent, MAX_TEXT_LENGTH, type PartialOutcome, type Usage } from './engine-event.js';

export const NO_USAGE: Usage = {
  inputTokens: 0,
  outputTokens: 0,
  cacheReadInputTokens: 0,
  cacheCreationInputTokens: 0,
};

/** Of a run that has come to nothing. */
export const NO_OUTCOME: PartialOutcome = {
  stopReason: null,
  usage: null,
  costUsd: null,
  numTurns: null,
  model: null,
  permissionDenials: [],
};

/** One message of the model while it comes: as deltas, or whole, in one line or several. */
export class OpenMessage {
  private text = '';
  private usage: Usage = NO_USAGE;

  constructor(
    readonly id: string,
    readonly turn: number,
    readonly isStreamed: boolean,
  ) {}

  /** What it has said so far. */
  get said(): string {
    return this.text;
  }

  addText(piece: string): EngineEvent {
    const { text } = cut(piece);
    // One past the limit is enough to know that it was passed.
    if (this.text.length <= MAX_TEXT_LENGTH) this.text += text;
    return { type: 'text', messageId: this.id, text };
  }

  addThinking(piece: string): EngineEvent {
    return { type: 'thinking', messageId: this.id, text: cut(piece).text };
  }

  /** Takes over the numbers that are told; a later one replaces an earlier one. */
  setUsage(told: ApiUsage): void {
    this.usage = {
      inputTokens: told.input_tokens ?? this.usage.inputTokens,
      outputTokens: told.output_tokens ?? this.usage.outputTokens,
      cacheReadInputTokens: told.cache_read_input_tokens ?? this.usage.cacheReadInputTokens,
      cacheCreationInputTokens: told.cache_creation_input_tokens ?? this.usage.cacheCreationInputTokens,
    };
  }

  /** `before` and this message together. */
  usageOnTopOf(before: Usage): Usage {
    return addUsage(before, this.usage);
  }

  /** The event that closes it; none for a message without text. */
  whole(): EngineEvent[] {
    if (this.text === '') return [];
    return [{ type: 'message', messageId: this.id, turn: this.turn, ...cut(this.text) }];
  }
}

export function addUsage(a: Usage, b: Usage): Usage {
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    cacheReadInputTokens: a.cacheReadInputTokens + b.cacheReadInputTokens,
    cacheCreationInputTokens: a.cacheCreationInputTokens + b.cacheCreationInputTokens,
  };
}

/** What has come to it since it was `before`. */
export function usageSince(before: Usage, usage: Usage): Usage {
  return {
    inputTokens: usage.inputTokens - before.inputTokens,
    outputTokens: usage.outputTokens - before.outputTokens,
    cacheReadInputTokens: usage.cacheReadInputTokens - before.cacheReadInputTokens,
    cacheCreationInputTokens: usage.cacheCreationInputTokens - before.cacheCreationInputTokens,
  };
}

/** Figure by figure. */
export function higherUsage(a: Usage, b: Usage): Usage {
  return {
    inputTokens: Math.max(a.inputTokens, b.inputTokens),
    outputTokens: Math.max(a.outputTokens, b.outputTokens),
    cacheReadInputTokens: Math.max(a.cacheReadInputTokens, b.cacheReadInputTokens),
    cacheCreationInputTokens: Math.max(a.cacheCreationInputTokens, b.cacheCreationInputTokens),
  };
}
