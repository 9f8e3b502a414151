export type RunAbortKind = 'cancelled' | 'timeout' | 'shutdown' | 'fenced' | 'over_quota';

/**
 * The reason to abort a run's signal with. `cancelled` ends it as cancelled, `timeout` as failed with `timeout`, `shutdown`
 * as failed with a retryable `engine_unavailable`: nobody asked for that end. `fenced` ends it like `shutdown`, but without
 * any gentleness: its lease is lost, somebody else may run it by now, and all of it is killed at once. `over_quota` ends it as
 * failed with `workspace_full`. Any other reason counts as `cancelled`.
 */
export class RunAbort extends Error {
  override readonly name = 'RunAbort';

  constructor(readonly kind: RunAbortKind) {
    super(`The run was ended: ${kind}.`);
  }

  /** Reads an AbortSignal's reason. */
  static kindOf(reason: unknown): RunAbortKind {
    return reason instanceof RunAbort ? reason.kind : 'cancelled';
  }
}
