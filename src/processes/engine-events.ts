import { z } from 'zod';
import type { Ending, EngineEvent, EngineRequest, JsonSchema } from '../../libs/claude-engine/index.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import type { RunFacts } from './process-log.repository.js';
import type { Outcome } from './process-outcome.js';
import { ExecuteRequestSchema } from './processes.schemas.js';

/** Everything that an engine says but its end. */
export type EngineProgress = Exclude<EngineEvent, { type: 'ended' }>;

const readSchema = (json: string) => JSON.parse(json) as JsonSchema;

/** What a process keeps of its request beside the columns. */
const StoredRequestSchema = ExecuteRequestSchema.omit({
  prompt: true,
  metadata: true,
  priority: true,
  retry: true,
  queueTimeoutMs: true,
  sessionId: true,
  forkSession: true,
}).extend({ outputSchema: z.string().transform(readSchema).optional() });

export function toEngineRequest(
  { id, prompt, request, costUsd }: { id: string; prompt: string; request: unknown; costUsd: number | null },
  defaultTimeoutMs: number,
): EngineRequest {
  const {
    permissionMode,
    timeoutMs,
    maxBudgetUsd,
    cancelOnDisconnect: _cancel,
    ...rest
  } = StoredRequestSchema.parse(request);
  return {
    ...rest,
    prompt,
    promptId: id,
    permissionMode,
    timeoutMs: timeoutMs ?? defaultTimeoutMs,
    ...(maxBudgetUsd === undefined ? {} : { maxBudgetUsd: leftOf(maxBudgetUsd, costUsd) }),
  };
}

/** What the attempts before have left of a budget. An engine takes no budget of nothing: the next request passes it. */
const leftOf = (maxBudgetUsd: number, spentUsd: number | null) =>
  Math.max(maxBudgetUsd - (spentUsd ?? 0), 0.0001);

export function toProcessEvent(event: EngineProgress, attempt: number): NewProcessEvent {
  switch (event.type) {
    case 'started':
      return { type: 'started', engine: event.engine, model: event.model, attempt };
    case 'message': {
      const { messageId, turn, text } = event;
      return { type: 'message', messageId, turn, text };
    }
    case 'user_message': {
      const { messageId, text } = event;
      return { type: 'user_message', messageId, text };
    }
    default:
      return event;
  }
}

/** What an event says about the process itself. */
export function factsOf(event: EngineProgress, demo: boolean): RunFacts {
  if (event.type === 'text') return { hasText: true };
  if (event.type !== 'started') return {};
  const { engine, model, cliVersion, cliSessionId } = event;
  return { started: { engine, model, cliVersion, cliSessionId, demo } };
}

export function toOutcome(ending: Ending): Outcome {
  const { stopReason, usage, costUsd, numTurns, model, permissionDenials } = ending;
  const figures = { stopReason, usage, costUsd, numTurns, model, permissionDenials };
  switch (ending.kind) {
    case 'completed':
      return {
        status: 'completed',
        result: ending.result,
        structuredResult: ending.structuredResult,
        ...figures,
      };
    case 'failed':
      return { status: 'failed', error: ending.error, ...figures };
    case 'cancelled':
      return { status: 'cancelled', ...figures, stopReason: stopReason ?? 'interrupted' };
  }
}
