import { type EngineEvent } from './engine-event.js';

/**
 * Notices that the CLI has said nothing for `stallMs`. A tool that runs may be quiet, and so may a CLI that told when it will
 * try again.
 */
export class StallWatchdog {
  private timer: NodeJS.Timeout | undefined;
  private readonly runningTools = new Set<string>();
  private isHeld = false;

  constructor(
    private readonly stallMs: number,
    private readonly onStall: () => void,
  ) {
    this.arm(0);
  }

  /** A line has come, and this is what it meant. */
  saw(events: readonly EngineEvent[]): void {
    let pauseMs = 0;
    for (const event of events) {
      if (event.type === 'tool_use') this.runningTools.add(event.toolUseId);
      if (event.type === 'tool_result') this.runningTools.delete(event.toolUseId);
      if (event.type === 'retrying' && event.retryAt !== null)
        pauseMs = Date.parse(event.retryAt) - Date.now();
    }
    this.arm(Math.max(0, pauseMs));
  }

  /** The CLI is held up by us, or no longer is: it may well be silent meanwhile. */
  hold(isHeld: boolean): void {
    this.isHeld = isHeld;
    this.arm(0);
  }

  stop(): void {
    this.isHeld = true;
    clearTimeout(this.timer);
  }

  private arm(pauseMs: number): void {
    clearTimeout(this.timer);
    if (this.runningTools.size === 0 && !this.isHeld)
      this.timer = setTimeout(this.onStall, this.stallMs + pauseMs);
  }
}
