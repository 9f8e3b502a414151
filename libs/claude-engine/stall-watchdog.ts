import { type EngineEvent } from './engine-event.js';

/**
 * Notices that the CLI has said nothing for `stallMs`. A tool that runs may be quiet, and so may a CLI that told when it will
 * try again, or that waits for somebody's approval.
 */
export class StallWatchdog {
  private timer: NodeJS.Timeout | undefined;
  private readonly runningTools = new Set<string>();
  private holds = 0;
  private isStopped = false;

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

  /** @returns ends the hold, once */
  hold(): () => void {
    this.holds += 1;
    clearTimeout(this.timer);
    return () => {
      this.holds -= 1;
      this.arm(0);
    };
  }

  stop(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
  }

  private arm(pauseMs: number): void {
    clearTimeout(this.timer);
    if (this.runningTools.size > 0 || this.holds > 0 || this.isStopped) return;
    this.timer = setTimeout(this.onStall, this.stallMs + pauseMs);
  }
}
