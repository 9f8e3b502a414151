/** Hands values from a producer that must not wait to one consumer that may. */
export class EventQueue<T> {
  private readonly waiting: T[] = [];
  private wake: (() => void) | null = null;
  private isClosed = false;

  push(value: T): void {
    if (this.isClosed) return;
    this.waiting.push(value);
    this.wake?.();
  }

  /** What is waiting can still be taken; nothing more comes. */
  close(): void {
    this.isClosed = true;
    this.wake?.();
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    while (this.waiting.length === 0 && !this.isClosed) {
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
    const [value] = this.waiting.splice(0, 1);
    return value === undefined ? { done: true, value: undefined } : { done: false, value };
  }
}
