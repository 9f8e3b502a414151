/** What the status machine of docs/architecture.md says of one process, in a few lines and without a database. */
export class ModelProcess {
  status: 'pending' | 'running' | 'completed' | 'failed' | 'cancelled' = 'pending';
  attempt = 1;
  fence = 0;
  lastSeq = 2;
  /** After how many workers that were lost with it it was given back: with what they had begun, and at all. */
  crashes = 0;
  losses = 0;
  /** This attempt has begun to act; any attempt has told of its start. */
  hasBegun = false;
  hasStarted = false;
  isCancelRequested = false;
  isParked = false;
  isOverdue = false;

  constructor(
    readonly id: string,
    readonly session: number,
    readonly retry: { maxAttempts: number; on: string[] },
  ) {}

  get isRunning(): boolean {
    return this.status === 'running';
  }

  get isWaiting(): boolean {
    return this.status === 'pending';
  }

  get isLate(): boolean {
    return this.isWaiting && this.isOverdue && !this.hasStarted;
  }

  /** @param all in the order in which they were submitted: within a session they run in that order */
  mayRun(all: ModelProcess[]): boolean {
    const isNext = all.every(
      (other) =>
        other.session !== this.session || !(other.isRunning || (other.isWaiting && this.isAfter(other, all))),
    );
    return this.isWaiting && !this.isParked && !this.isLate && isNext;
  }

  claim(): void {
    this.status = 'running';
    this.fence += 1;
    this.hasBegun = false;
  }

  begin(): void {
    if (!this.isCancelRequested) this.hasBegun = true;
  }

  start(): void {
    this.hasBegun = true;
    this.hasStarted = true;
    this.lastSeq += 1;
  }

  /** The run is over by itself; null for a failure that has a code. */
  endRun(outcome: { status: 'completed' | 'cancelled' } | { status: 'failed'; code: string }): void {
    if (outcome.status === 'failed' && !this.isCancelRequested && this.mayRepeat(outcome.code))
      this.goBack({ isTold: true, isParked: true });
    else this.end(outcome.status);
  }

  loseWorker(): void {
    this.fence += 1;
    if (this.isCancelRequested) this.end('cancelled');
    else this.crash();
  }

  shutWorkerDown(): void {
    if (this.isCancelRequested) this.end('cancelled');
    else this.leaveWorker();
  }

  cancel(): void {
    if (this.status === 'pending') this.end('cancelled');
    if (this.status === 'running') this.isCancelRequested = true;
  }

  expireInQueue(): void {
    if (this.isLate) this.end('failed');
  }

  private crash(): void {
    const { hasBegun } = this;
    if (this.losses === 4 || (hasBegun && this.crashes === 1)) this.end('failed');
    else this.leaveWorker();
    if (!this.isWaiting) return;
    this.losses += 1;
    if (hasBegun) this.crashes += 1;
  }

  private isAfter(other: ModelProcess, all: ModelProcess[]): boolean {
    return all.indexOf(this) > all.indexOf(other);
  }

  private leaveWorker(): void {
    if (!this.hasBegun) this.goBack({ isTold: false, isParked: false });
    else if (this.mayRepeat('worker_lost')) this.goBack({ isTold: true, isParked: false });
    else this.end('failed');
  }

  private mayRepeat(code: string): boolean {
    return this.attempt < this.retry.maxAttempts && this.retry.on.includes(code);
  }

  private goBack({ isTold, isParked }: { isTold: boolean; isParked: boolean }): void {
    this.status = 'pending';
    this.hasBegun = false;
    this.isParked = isParked;
    if (!isTold) return;
    this.attempt += 1;
    this.lastSeq += 1;
  }

  private end(status: 'completed' | 'failed' | 'cancelled'): void {
    this.status = status;
    this.lastSeq += 1;
  }
}
