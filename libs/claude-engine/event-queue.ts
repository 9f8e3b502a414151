/** Hands values from a producer to one consumer that may wait. A producer that can wait as well asks how many are waiting. */
export class EventQueue<T> {
  private readonly waiting: T[] = [];
  private wake: (() => void) | null = null;
  private readonly tellTaken: (() => void)[] = [];
  private isClosed = false;

  /** How many wait; none once nobody takes any. */
  get length(): number {
    return this.isClosed ? 0 : this.waiting.length;
  }

  push(value: T): void {
    if (this.isClosed) return;
    this.waiting.push(value);
    this.wake?.();
  }

  /** What is waiting can still be taken; nothing more comes. */
  close(): void {
    this.isClosed = true;
    this.wake?.();
    this.noteTaken();
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    while (this.waiting.length === 0 && !this.isClosed) {
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
    const [value] = this.waiting.splice(0, 1);
    this.noteTaken();
    return value === undefined ? { done: true, value: undefined } : { done: false, value };
  }

  /** Resolves when one is taken, or none is any more. */
  taken(): Promise<void> {
    return new Promise((resolve) => this.tellTaken.push(resolve));
  }

  private noteTaken(): void {
    for (const tell of this.tellTaken.splice(0)) tell();
  }
}
