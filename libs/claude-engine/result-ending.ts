import { boundedInput, cut } from './bounded-text.js';
import { type ResultLine } from './cli-line.js';
import { type Ending, type PartialOutcome, type StopReason, type Usage } from './engine-event.js';
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

/** The ending that a result stands for. Assumes that the CLI served this run alone: its sums are the run's. */
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
    const stopReason = line.subtype === 'error_max_turns' ? 'max_turns' : null;
    return { kind: 'failed', error: failureOf(line, before.errorWord), stopReason, ...outcome };
  }
  const stopReason = STOP_REASONS.get(before.stopReason ?? line.stop_reason ?? '') ?? 'end_turn';
  const { text: result, truncated } = cut(line.result ?? '');
  return { kind: 'completed', result, truncated, stopReason, ...outcome };
}

/** All models together, subagents and the CLI's own errands included; null where nothing was asked. */
function usageOf({ modelUsage }: ResultLine): Usage | null {
  const models = Object.values(modelUsage);
  return models.length > 0 ? models.reduce(addUsage, NO_USAGE) : null;
}
