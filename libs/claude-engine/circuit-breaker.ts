export type BreakerState = 'closed' | 'open' | 'half_open';

export interface BreakerOptions {
  /** So many requests in a row that failed open it; 10 unless told. */
  failures?: number | undefined;
  /** How long it is open at first, and twice as long each time that a probe fails, up to the longest; 5 s and 30 s unless told. */
  openMs?: number | undefined;
  longestOpenMs?: number | undefined;
}

const FAILURES = 10;
const OPEN_MS = 5_000;
const LONGEST_OPEN_MS = 30_000;
/** A probe that nothing has come of for so long is not waited for: another one may go. */
const PROBE_PATIENCE_MS = 30_000;

/**
 * Stands in front of the Messages API. After some failures in a row, of whichever launches, nobody asks for a while; then one
 * request at a time does, until one is answered. What runs already waits, what has not begun does not begin.
 */
export class CircuitBreaker {
  private readonly maxFailures: number;
  private readonly firstOpenMs: number;
  private readonly longestOpenMs: number;
  private failures = 0;
  private openMs: number;
  private openUntil: number | null = null;
  private probingUntil: number | null = null;
  private hasTrial = false;
  private readonly waiting = new Set<() => void>();

  constructor(
    { failures = FAILURES, openMs = OPEN_MS, longestOpenMs = LONGEST_OPEN_MS }: BreakerOptions = {},
    private readonly now: () => number = () => performance.now(),
  ) {
    this.maxFailures = failures;
    this.firstOpenMs = openMs;
    this.longestOpenMs = longestOpenMs;
    this.openMs = openMs;
  }

  get state(): BreakerState {
    if (this.openUntil === null) return 'closed';
    return this.now() < this.openUntil ? 'open' : 'half_open';
  }

  private get remainingMs(): number {
    return Math.ceil((this.openUntil ?? 0) - this.now());
  }

  /** Whether a request may go: 0 if so, else how long it has to wait, in milliseconds. Who may go says later what came of it. */
  admit(): number {
    switch (this.state) {
      case 'closed':
        return 0;
      case 'open':
        return this.remainingMs;
      case 'half_open':
        // As long as if the probe failed: whoever asks again at once uses up its tries.
        if (this.probingUntil !== null && this.now() < this.probingUntil) return this.openMs;
        this.probingUntil = this.now() + PROBE_PATIENCE_MS;
        return 0;
    }
  }

  /** The API has answered a request: whatever it said, it is there. */
  succeed(): void {
    this.probingUntil = null;
    this.failures = 0;
    this.openMs = this.firstOpenMs;
    this.openUntil = null;
    this.wakeAll();
  }

  fail(): void {
    this.probingUntil = null;
    this.failures += 1;
    // What was on its way when it opened tells nothing new.
    if (this.state === 'open' || this.failures < this.maxFailures) return;
    this.openUntil = this.now() + this.openMs;
    this.openMs = Math.min(2 * this.openMs, this.longestOpenMs);
  }

  /** A request that was let go has come to nothing, and not by the API. */
  abandon(): void {
    this.probingUntil = null;
  }

  /**
   * Resolves when a run may begin: at once while it is closed; one at a time while it is half open.
   * @returns to be called when the run is over; null where the signal aborts before
   */
  async enter(signal: AbortSignal): Promise<(() => void) | null> {
    while (!signal.aborted) {
      const { state } = this;
      if (state === 'closed') return () => undefined;
      if (state === 'half_open' && !this.hasTrial) {
        this.hasTrial = true;
        return () => {
          this.hasTrial = false;
          this.wakeAll();
        };
      }
      // Who waits admits nobody: what was open a moment ago may be half open by now, and would count this as its probe.
      await this.change(signal, state === 'open' ? Math.max(1, this.remainingMs) : null);
    }
    return null;
  }

  private async change(signal: AbortSignal, afterMs: number | null): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = afterMs === null ? undefined : setTimeout(wake, afterMs);
      const { waiting } = this;
      function wake() {
        clearTimeout(timer);
        waiting.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      }
      waiting.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }

  private wakeAll(): void {
    for (const wake of [...this.waiting]) wake();
  }
}
