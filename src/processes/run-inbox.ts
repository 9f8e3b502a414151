import type { ProcessCommand } from './process-commands.repository.js';

/** What to do with a command; whether that is done, so that the command need not be read again. */
type Deliver = (command: ProcessCommand) => boolean;

/** What a worker's run is told. The same command may come several times. */
export class RunInbox {
  private readonly ways = new Map<string, Deliver>();
  private readonly done = new Set<string>();

  /** From now on, commands of this kind go that way. */
  on(kind: string, deliver: Deliver): this {
    this.ways.set(kind, deliver);
    return this;
  }

  /** @returns whether it is done; null for a kind that goes nowhere */
  receive(command: ProcessCommand): boolean | null {
    if (this.done.has(command.id)) return true;
    const deliver = this.ways.get(command.kind);
    if (!deliver) return null;
    const isDone = deliver(command);
    if (isDone) this.done.add(command.id);
    return isDone;
  }
}
