import fc from 'fast-check';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';
import type { Outcome, ProcessLogRepository, Run, RunFacts } from './process-log.repository.js';
import { RunLog, RunLost } from './run-log.js';

const RUN = { processId: '01a20ad0-901d-72aa-ab3f-5decf5582876', fence: 1, lastSeq: 2 };
const COMPLETED: Outcome = { status: 'completed', result: 'Done.' };

/** When the connection breaks: before the database has done what it was asked, or before it has said so. */
type Fault = 'before' | 'after';

const outage = () => Object.assign(new Error('Connection terminated'), { code: 'ECONNRESET' });
const tick = () => new Promise((resolve) => setImmediate(resolve));

/** The log of one run, held to the rules of the database: by fence, status and last seq. */
class FakeLog {
  fence = RUN.fence;
  status = 'running';
  isCancelRequested = false;
  readonly events: ProcessEvent[] = [];
  /** How many events each write brought. */
  readonly batches: number[] = [];
  readonly facts: RunFacts[] = [];
  readonly faults: Fault[] = [];

  readonly repository = {
    append: (run: Run & { lastSeq: number }, events: NewProcessEvent[], facts: RunFacts) =>
      this.write(() => {
        if (!this.isOf(run) || run.lastSeq !== RUN.lastSeq + this.events.length) return null;
        this.batches.push(events.length);
        this.facts.push(facts);
        return { events: this.add(events), cancelRequested: this.isCancelRequested };
      }),
    end: (run: Run, events: NewProcessEvent[], { status, result = null }: Outcome) =>
      this.write(() => {
        if (!this.isOf(run)) return null;
        this.status = status;
        return this.add([...events, { type: status, process: { result } } as NewProcessEvent]);
      }),
    findRun: () =>
      Promise.resolve({ fence: this.fence, status: this.status, lastSeq: RUN.lastSeq + this.events.length }),
    read: (_id: string, after: number, limit: number) =>
      Promise.resolve(this.events.filter(({ seq }) => seq > after).slice(0, limit)),
  } as unknown as ProcessLogRepository;

  /** What the reconciler does to a run whose worker it takes for lost. */
  giveUp(): void {
    this.status = 'failed';
    this.add([{ type: 'failed', process: {} } as NewProcessEvent]);
  }

  private isOf(run: Run): boolean {
    return run.fence === this.fence && this.status === 'running';
  }

  private async write<T>(act: () => T): Promise<T> {
    const fault = this.faults.shift();
    await tick();
    if (fault === 'before') throw outage();
    const done = act();
    if (fault === 'after') throw outage();
    return done;
  }

  private add(events: NewProcessEvent[]): ProcessEvent[] {
    const added = events.map((event, index) => ({
      processId: RUN.processId,
      seq: RUN.lastSeq + this.events.length + index + 1,
      createdAt: '2026-01-01T00:00:00.000Z',
      ...event,
    }));
    this.events.push(...added);
    return added;
  }
}

function open() {
  const log = new FakeLog();
  const published: ProcessEvent[] = [];
  const onCancelRequested = jest.fn();
  const runLog = new RunLog({
    run: RUN,
    log: log.repository,
    onCommitted: (events) => published.push(...events),
    onCancelRequested,
  });
  return { log, published, onCancelRequested, runLog };
}

const text = (said: string, messageId = 'm'): NewProcessEvent => ({ type: 'text', messageId, text: said });
const tool = (toolUseId: string): NewProcessEvent => ({
  type: 'tool_use',
  toolUseId,
  name: 'Read',
  input: {},
});

/** What was said in the messages of a log, each whole. */
function spoken(events: readonly NewProcessEvent[]): Record<string, string> {
  const said: Record<string, string> = {};
  for (const event of events) {
    if (event.type !== 'text' && event.type !== 'thinking') continue;
    const key = `${event.type} ${event.messageId}`;
    said[key] = (said[key] ?? '') + event.text;
  }
  return said;
}

describe('the log of a run', () => {
  it('holds what was said, whole and in order, however it was cut and however slow the database is', async () => {
    // Cut between any two code units, pairs included; what pauses lets a write go through in between.
    const delta = fc.record({
      type: fc.constantFrom('text' as const, 'thinking' as const),
      messageId: fc.constantFrom('a', 'b'),
      text: fc.array(fc.constantFrom('x', 'é', '\ud83d\ude00')).map((characters) => characters.join('')),
      cut: fc.nat(4),
      isSlow: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(delta, { maxLength: 30 }), async (deltas) => {
        const { log, published, runLog } = open();
        for (const { cut, isSlow, text: whole, ...message } of deltas) {
          for (const part of [whole.slice(0, cut), whole.slice(cut)])
            await runLog.append({ ...message, text: part });
          if (isSlow) await tick();
        }
        await runLog.end(COMPLETED);
        const without = (said: Record<string, string>) =>
          Object.fromEntries(Object.entries(said).filter(([, all]) => all !== ''));
        expect(without(spoken(log.events))).toEqual(without(spoken(deltas)));
        expect(log.events.every((event) => !('text' in event) || event.text.isWellFormed())).toBe(true);
        expect(log.events.at(-1)).toMatchObject({ type: 'completed' });
        expect(published).toEqual(log.events);
      }),
    );
  });

  it('is written at once while nothing is under way, and together where something is', async () => {
    const { log, runLog } = open();
    await runLog.append(tool('1'));
    for (const id of ['2', '3', '4']) await runLog.append(tool(id));
    await runLog.settled();
    expect(log.batches).toEqual([1, 3]);
    await runLog.append(tool('5'));
    await runLog.settled();
    expect(log.batches).toEqual([1, 3, 1]);
  });

  it('joins deltas that wait together, and no others', async () => {
    const { log, runLog } = open();
    const waiting = [text('He'), text('llo'), tool('1'), text('a'), text('b'), text('c', 'n')];
    for (const event of [tool('0'), ...waiting]) await runLog.append(event);
    await runLog.settled();
    expect(log.events.slice(1).map((event) => ('text' in event ? event.text : event.type))).toEqual([
      'Hello',
      'tool_use',
      'ab',
      'c',
    ]);
  });

  it('brings what is known of the run with the event that told it', async () => {
    const { log, runLog } = open();
    await runLog.append(tool('1'), { hasText: true });
    await runLog.append(tool('2'));
    await runLog.settled();
    expect(log.facts).toEqual([{ hasText: true }, {}]);
  });

  it('replaces half a pair whose other half never comes', async () => {
    const { log, runLog } = open();
    await runLog.append(text('a\ud83d'));
    await runLog.append(tool('1'));
    await runLog.append(text('b\ud83d', 'n'));
    await runLog.end(COMPLETED);
    expect(spoken(log.events)).toEqual({ 'text m': 'a\ufffd', 'text n': 'b\ufffd' });
  });

  it('makes the run wait once a thousand events do', async () => {
    const { log, runLog } = open();
    for (let n = 0; n < 1_000; n += 1) await runLog.append(tool(String(n)));
    expect(log.events).toHaveLength(0);
    await runLog.append(tool('one more'));
    expect(log.events).toHaveLength(1_001);
  });

  it.each<Fault>(['before', 'after'])(
    'holds everything once though the connection broke %s the database had done it',
    async (fault) => {
      const { log, published, runLog } = open();
      log.faults.push(fault);
      await runLog.append(tool('1'));
      await runLog.append(tool('2'));
      await runLog.settled();
      log.faults.push(fault);
      await runLog.end(COMPLETED);
      expect(log.events.map(({ type }) => type)).toEqual(['tool_use', 'tool_use', 'completed']);
      expect(published).toEqual(log.events);
    },
  );

  it('tells the run of a cancel that was asked for meanwhile', async () => {
    const { log, onCancelRequested, runLog } = open();
    await runLog.append(tool('1'));
    await runLog.settled();
    expect(onCancelRequested).not.toHaveBeenCalled();
    log.isCancelRequested = true;
    await runLog.append(tool('2'));
    await runLog.settled();
    expect(onCancelRequested).toHaveBeenCalled();
  });

  it('is closed to a run that another worker has taken over, and stops it', async () => {
    const { log, published, onCancelRequested, runLog } = open();
    log.fence += 1;
    await runLog.append(tool('1'));
    await runLog.settled();
    expect(onCancelRequested).toHaveBeenCalled();
    await expect(runLog.append(tool('2'))).rejects.toThrow(RunLost);
    await expect(runLog.end(COMPLETED)).rejects.toThrow(RunLost);
    expect([log.events, published]).toEqual([[], []]);
  });

  it('does not take the ending that the run was given for what it wrote itself', async () => {
    const { log, published, runLog } = open();
    log.giveUp();
    await runLog.append(tool('1'));
    await runLog.settled();
    await expect(runLog.append(tool('2'))).rejects.toThrow(RunLost);
    await expect(runLog.end(COMPLETED)).rejects.toThrow(RunLost);
    expect(log.events.map(({ type }) => type)).toEqual(['failed']);
    expect(published).toEqual([]);
  });

  it('that refuses an event for good stops the run, and says why', async () => {
    const { log, onCancelRequested, runLog } = open();
    const refusal = Object.assign(new Error('invalid byte sequence'), { code: '22021' });
    log.repository.append = () => Promise.reject(refusal);
    await runLog.append(tool('1'));
    await runLog.settled();
    expect(onCancelRequested).toHaveBeenCalled();
    await expect(runLog.end(COMPLETED)).rejects.toMatchObject({ name: 'RunLost', cause: refusal });
  });
});
