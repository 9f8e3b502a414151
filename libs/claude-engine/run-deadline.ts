const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Comes when a run has taken its time, but for the time in which it was held. */
export class RunDeadline {
  private timer: NodeJS.Timeout | undefined;
  private leftMs: number;
  private startedAt = 0;
  private holds = 0;
  private isStopped = false;

  constructor(
    ms: number,
    private readonly onOver: () => void,
  ) {
    this.leftMs = ms;
    this.start();
  }

  /** @returns ends the hold; called again it does nothing */
  hold(): () => void {
    if (this.holds === 0) this.leftMs -= performance.now() - this.startedAt;
    clearTimeout(this.timer);
    this.holds += 1;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.holds -= 1;
      if (this.holds === 0) this.start();
    };
  }

  stop(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
  }

  private start(): void {
    this.startedAt = performance.now();
    if (!this.isStopped)
      this.timer = setTimeout(this.onOver, Math.min(Math.max(0, this.leftMs), LONGEST_TIMER_MS));
  }
}
