import { boundedInput, cut } from './bounded-text.js';
import { type ResultLine } from './cli-line.js';
import {
  type CompletedEnding,
  type Ending,
  type PartialOutcome,
  type StopReason,
  type Usage,
} from './engine-event.js';
import { failureOf } from './failure.js';
import { addUsage, NO_USAGE } from './open-message.js';

/** Of more than these nobody reads the rest. */
const MAX_DENIALS = 1000;

/** What the lines before the result told. */
interface Before {
  partial: PartialOutcome;
  /** Of the last message, in the API's words. */
  stopReason: string | null;
  /** Of the CLI's last own message. */
  errorWord: string | null;
}

const STOP_REASONS = new Map<string, StopReason>([
  ['max_tokens', 'max_tokens'],
  ['model_context_window_exceeded', 'max_tokens'],
  ['refusal', 'refusal'],
]);

/** @param word of the Messages API */
export const stopReasonOf = (word: string): StopReason => STOP_REASONS.get(word) ?? 'end_turn';

/** By the subtype of the result. */
const LIMITS = new Map<string, StopReason>([
  ['error_max_turns', 'max_turns'],
  ['error_max_budget_usd', 'run_budget_reached'],
]);

/**
 * The ending that a result stands for. Assumes that the CLI served this run alone: its sums are the run's, but for
 * `numTurns`, which counts since the result before.
 */
export function endingOf(line: ResultLine, before: Before): Ending {
  const outcome = {
    usage: usageOf(line) ?? before.partial.usage ?? NO_USAGE,
    costUsd: line.total_cost_usd,
    numTurns: line.num_turns,
    model: before.partial.model,
    permissionDenials: line.permission_denials.slice(0, MAX_DENIALS).map((denial) => ({
      toolUseId: denial.tool_use_id,
      name: denial.tool_name,
      input: boundedInput(denial.tool_input),
    })),
  };
  if (line.terminal_reason === 'aborted_streaming' || line.terminal_reason === 'aborted_tools') {
    return { kind: 'cancelled', stopReason: 'interrupted', ...outcome };
  }
  if (line.is_error || line.subtype !== 'success') {
    const stopReason = LIMITS.get(line.subtype) ?? null;
    return { kind: 'failed', error: failureOf(line, before.errorWord), stopReason, ...outcome };
  }
  const stopReason = stopReasonOf(before.stopReason ?? line.stop_reason ?? '');
  const { text: result, truncated } = cut(line.result ?? '');
  const structuredResult = line.structured_output ?? null;
  return { kind: 'completed', result, truncated, structuredResult, stopReason, ...outcome };
}

/** All models together, subagents and the CLI's own errands included; null where nothing was asked. */
function usageOf({ modelUsage }: ResultLine): Usage | null {
  const models = Object.values(modelUsage);
  return models.length > 0 ? models.reduce(addUsage, NO_USAGE) : null;
}

/** The ending of a run whose turn was stopped because somebody wanted just that, with what it had said by then. */
export function interruptedEnding(ending: Ending, lastWords: string): CompletedEnding {
  const { usage, costUsd, numTurns, model, permissionDenials } = ending;
  const { text: result, truncated } = cut(lastWords);
  return {
    kind: 'completed',
    result,
    truncated,
    structuredResult: null,
    stopReason: 'interrupted',
    usage: usage ?? NO_USAGE,
    costUsd: costUsd ?? 0,
    numTurns: numTurns ?? 0,
    model,
    permissionDenials,
  };
}
