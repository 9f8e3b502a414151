import { type Ending, type PartialOutcome } from './engine-event.js';
import { engineError } from './failure.js';
import { type RunAbortKind } from './run-abort.js';

/**
 * Why a run is ended before its result. `abandoned`: nobody reads it any more. `refused`: the API does not take the key.
 * `flooded`: the CLI says more than anybody keeps. `barred`: nobody could find out whether the model may be asked.
 */
export type StopCause = RunAbortKind | 'stalled' | 'abandoned' | 'refused' | 'flooded' | 'barred';

/** @param run.hasStarted whether the engine had come up: what never did was not available, whatever else is wrong with it */
export function endingOfStop(
  cause: StopCause,
  outcome: PartialOutcome,
  { hasStarted }: { hasStarted: boolean },
): Ending {
  switch (cause) {
    case 'cancelled':
    case 'abandoned':
      return { kind: 'cancelled', ...outcome };
    case 'timeout':
      return { kind: 'failed', error: engineError('timeout'), ...outcome };
    case 'stalled':
      return {
        kind: 'failed',
        error: engineError(hasStarted ? 'stalled' : 'engine_unavailable'),
        ...outcome,
      };
    case 'refused':
      return { kind: 'failed', error: engineError('upstream_authentication_failed'), ...outcome };
    case 'barred':
      return { kind: 'failed', error: engineError('internal'), ...outcome };
    case 'flooded':
      return { kind: 'failed', error: engineError('output_too_large'), ...outcome };
    case 'over_quota':
      return { kind: 'failed', error: engineError('workspace_full'), ...outcome };
    case 'shutdown':
      return endedByServer('The server that ran this was shut down.', outcome);
    case 'fenced':
      return endedByServer('The server that ran this lost touch, and its run was ended.', outcome);
  }
}

function endedByServer(detail: string, outcome: PartialOutcome): Ending {
  const error = engineError('engine_unavailable', { detail });
  return { kind: 'failed', error, isByServer: true, ...outcome };
}
