import type { Process, ProcessError, Usage } from './processes.schemas.js';

/** How a process ends, and what its last run used. */
export interface Outcome {
  status: 'completed' | 'failed' | 'cancelled';
  result?: string | null;
  /** Null where no schema asked for one: what a schema asks for is an object. */
  structuredResult?: unknown;
  error?: ProcessError | null;
  stopReason?: Process['stopReason'];
  usage?: Usage | null;
  costUsd?: number | null;
  numTurns?: number | null;
  model?: string | null;
  permissionDenials?: Process['permissionDenials'];
  filesChanged?: Process['filesChanged'];
}

/** All attempts together; null where none told. */
export function addUsage(a: Usage | null, b: Usage | null): Usage | null {
  if (!a || !b) return a ?? b;
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    cacheReadInputTokens: a.cacheReadInputTokens + b.cacheReadInputTokens,
    cacheCreationInputTokens: a.cacheCreationInputTokens + b.cacheCreationInputTokens,
  };
}

/** US dollars of all attempts together; null where none told. */
export const addCost = (a: number | null, b: number | null) => (a === null || b === null ? (a ?? b) : a + b);
