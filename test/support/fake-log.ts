import type { ProcessChannel } from '../../src/processes/process-channel.js';
import type { Concluded, ProcessEndingsRepository } from '../../src/processes/process-endings.repository.js';
import type { NewProcessEvent, ProcessEvent } from '../../src/processes/process-events.schemas.js';
import type {
  Appended,
  ProcessLogRepository,
  Run,
  RunBatch,
} from '../../src/processes/process-log.repository.js';
import type { RunHistory, Verdict } from '../../src/processes/run-verdict.js';

/** When the connection breaks: before the database has done what it was asked, after it, or not even that is said. */
export type Fault = 'before' | 'after' | 'hang';

const outage = () => Object.assign(new Error('Connection terminated'), { code: 'ECONNRESET' });
export const tick = () => new Promise((resolve) => setImmediate(resolve));

const HISTORY: RunHistory = {
  attempt: 1,
  maxAttempts: 2,
  retryOn: [],
  hasStarted: true,
  crashCount: 0,
  lossCount: 0,
  cancelRequested: false,
};

/** One process, held to the rules of the database: by fence, status and last seq. */
export class FakeProcess {
  fence = 1;
  status = 'running';
  isCancelRequested = false;
  retryOn: string[] = [];
  readonly events: ProcessEvent[] = [];

  constructor(readonly id: string) {}

  get run(): Run & { lastSeq: number } {
    return { processId: this.id, fence: this.fence, lastSeq: 0 };
  }

  get lastSeq(): number {
    return this.events.length;
  }

  isOf({ fence }: Run): boolean {
    return fence === this.fence && this.status === 'running';
  }

  add(events: NewProcessEvent[]): ProcessEvent[] {
    const added = events.map((event, index) => ({
      processId: this.id,
      seq: this.lastSeq + index + 1,
      createdAt: '2026-01-01T00:00:00.000Z',
      ...event,
    }));
    this.events.push(...added);
    return added;
  }

  /** What the reconciler does to a run whose worker it takes for lost. */
  giveUp(): void {
    this.status = 'failed';
    this.add([{ type: 'failed', process: {} } as NewProcessEvent]);
  }
}

/** The database of the writers, with faults on demand. Each write takes a turn of the event loop, or as long as it is held. */
export class FakeLog {
  readonly processes = new Map<string, FakeProcess>();
  /** How many events of which processes each write brought: `{ a: 1, b: 2 }`. */
  readonly writes: Record<string, number>[] = [];
  readonly facts: RunBatch['facts'][] = [];
  readonly published: ProcessEvent[] = [];
  /** What becomes of the next questions, the first first. */
  readonly faults: (Fault | null)[] = [];
  /** What the database refuses for good. */
  isPoison: (event: NewProcessEvent) => boolean = () => false;
  private holding: Promise<unknown> = Promise.resolve();

  readonly repository = {
    append: (batches: RunBatch[]) => this.answer(() => this.append(batches)),
    begin: (run: Run) =>
      this.answer(() => {
        const process = this.processes.get(run.processId);
        return process?.isOf(run) ? { cancelRequested: process.isCancelRequested } : null;
      }),
    findRuns: (ids: string[]) =>
      this.answer(() => {
        const found = ids.map((id) => this.processes.get(id)).filter((process) => process !== undefined);
        return new Map(found.map(({ id, fence, status, lastSeq }) => [id, { fence, status, lastSeq }]));
      }),
    read: (id: string, after: number, { limit }: { limit: number }) =>
      this.answer(() => this.processes.get(id)?.events.slice(after, after + limit) ?? []),
  } as unknown as ProcessLogRepository;

  readonly endings = {
    conclude: (run: Run, events: NewProcessEvent[], judge: (run: RunHistory) => Verdict) =>
      this.answer(() => this.conclude(run, events, judge)),
  } as unknown as ProcessEndingsRepository;

  readonly channel = {
    publishEvents: (_id: string, events: ProcessEvent[]) => void this.published.push(...events),
  } as unknown as ProcessChannel;

  process(id = 'p'): FakeProcess {
    const process = this.processes.get(id) ?? new FakeProcess(id);
    this.processes.set(id, process);
    return process;
  }

  /** Lets the database answer nothing until it is released. */
  hold(): () => void {
    let release: () => void = () => undefined;
    this.holding = new Promise<void>((resolve) => (release = resolve));
    return release;
  }

  private append(batches: RunBatch[]): Map<string, Appended> {
    this.writes.push(Object.fromEntries(batches.map(({ run, events }) => [run.processId, events.length])));
    if (batches.some(({ events }) => events.some((event) => this.isPoison(event))))
      throw Object.assign(new Error('invalid byte sequence'), { code: '22021' });
    const appended = new Map<string, Appended>();
    for (const { run, lastSeq, events, facts } of batches) {
      const process = this.processes.get(run.processId);
      if (!process?.isOf(run) || process.lastSeq !== lastSeq) continue;
      this.facts.push(facts);
      const { isCancelRequested: cancelRequested } = process;
      appended.set(process.id, { events: process.add(events), cancelRequested });
    }
    return appended;
  }

  private conclude(
    run: Run,
    events: NewProcessEvent[],
    judge: (run: RunHistory) => Verdict,
  ): Concluded | null {
    const process = this.processes.get(run.processId);
    if (!process?.isOf(run)) return null;
    const verdict = judge({
      ...HISTORY,
      retryOn: process.retryOn,
      cancelRequested: process.isCancelRequested,
    });
    if (verdict.kind === 'again') {
      process.status = 'pending';
      return { events: process.add(events), next: { id: process.id, afterMs: verdict.afterMs } };
    }
    const { status, result = null } = verdict.outcome;
    process.status = status;
    const terminal = { type: status, process: { result } } as NewProcessEvent;
    return { events: process.add([...events, terminal]), next: null };
  }

  private async answer<T>(act: () => T): Promise<T> {
    const fault = this.faults.shift();
    await this.holding;
    await tick();
    if (fault === 'before') throw outage();
    if (fault === 'hang') return new Promise(() => undefined);
    const done = act();
    if (fault === 'after') throw outage();
    return done;
  }
}
