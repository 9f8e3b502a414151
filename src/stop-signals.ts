/** What a terminal, an orchestrator or a closed window says when the server should end. */
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** Listens for the signals to stop, from its construction on. */
export class StopSignals {
  /** Resolves at the first signal. */
  readonly first: Promise<void>;
  private readonly controller = new AbortController();
  private count = 0;
  private onSecond: (() => void) | null = null;

  constructor() {
    this.first = new Promise((resolve) => {
      for (const name of SIGNALS) {
        process.on(name, () => {
          this.count += 1;
          this.controller.abort();
          resolve();
          if (this.count > 1) this.onSecond?.();
        });
      }
    });
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  get wasGiven(): boolean {
    return this.count > 0;
  }

  /** Who is asked twice hurries. */
  whenRepeated(hurry: () => void): void {
    this.onSecond = hurry;
    if (this.count > 1) hurry();
  }
}
