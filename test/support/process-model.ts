/** What the status machine of docs/architecture.md says of one process, in a few lines and without a database. */
export class ModelProcess {
  status: 'pending' | 'running' | 'completed' | 'failed' | 'cancelled' = 'pending';
  attempt = 1;
  fence = 0;
  lastSeq = 2;
  /** After how many of them it was given back. */
  crashes = 0;
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

  get hasEnded(): boolean {
    return this.status !== 'pending' && this.status !== 'running';
  }

  mayRun(all: ModelProcess[]): boolean {
    const isLate = this.isOverdue && !this.hasStarted;
    const sessionIsBusy = all.some(({ session, isRunning }) => isRunning && session === this.session);
    return this.status === 'pending' && !this.isParked && !isLate && !sessionIsBusy;
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
    const before = this.attempt;
    if (this.isCancelRequested) this.end('cancelled');
    else if (this.crashes > 0) this.end('failed');
    else this.leaveWorker();
    if (this.attempt > before) this.crashes += 1;
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
    this.isOverdue = true;
    if (this.status === 'pending' && !this.hasStarted) this.end('failed');
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
    this.attempt += 1;
    this.hasBegun = false;
    this.isParked = isParked;
    if (isTold) this.lastSeq += 1;
  }

  private end(status: 'completed' | 'failed' | 'cancelled'): void {
    this.status = status;
    this.lastSeq += 1;
  }
}
