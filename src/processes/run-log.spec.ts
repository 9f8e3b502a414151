import { Logger } from '@nestjs/common';
import fc from 'fast-check';
import { type Fault, FakeLog, tick } from '../../test/support/fake-log.js';
import { EventAppender } from './event-appender.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import type { Outcome } from './process-outcome.js';
import { RunLost } from './run-log.js';
import type { Verdict } from './run-verdict.js';

const COMPLETED: Outcome = { status: 'completed', result: 'Done.' };
const completed = (): Verdict => ({ kind: 'end', outcome: COMPLETED });

function open() {
  const log = new FakeLog();
  const process = log.process();
  const appender = new EventAppender(log.repository, log.endings, log.channel);
  const [onCancelRequested, onLost] = [jest.fn(), jest.fn()];
  const runLog = appender.open(process.run, { onCancelRequested, onLost });
  return { log, process, onCancelRequested, onLost, runLog };
}

const text = (said: string, messageId = 'm'): NewProcessEvent => ({ type: 'text', messageId, text: said });
const tool = (toolUseId: string, input: unknown = {}): NewProcessEvent => ({
  type: 'tool_use',
  toolUseId,
  name: 'Read',
  input,
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

/** JSON can be written so deep, and hardly deeper. */
function deeplyNested(innermost: unknown, depth: number): unknown {
  let value = innermost;
  for (let level = 0; level < depth; level += 1) value = { value };
  return value;
}

describe('the log of a run', () => {
  beforeAll(() => void Logger.overrideLogger(false));

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
        const { log, process, runLog } = open();
        for (const { cut, isSlow, text: whole, ...message } of deltas) {
          for (const part of [whole.slice(0, cut), whole.slice(cut)])
            await runLog.append({ ...message, text: part });
          if (isSlow) await tick();
        }
        await runLog.conclude(completed);
        const without = (said: Record<string, string>) =>
          Object.fromEntries(Object.entries(said).filter(([, all]) => all !== ''));
        expect(without(spoken(process.events))).toEqual(without(spoken(deltas)));
        expect(process.events.every((event) => !('text' in event) || event.text.isWellFormed())).toBe(true);
        expect(process.events.at(-1)).toMatchObject({ type: 'completed' });
        expect(log.published).toEqual(process.events);
      }),
    );
  });

  it('is written at once while nothing is under way, and together where something is', async () => {
    const { log, runLog } = open();
    await runLog.append(tool('1'));
    for (const id of ['2', '3', '4']) await runLog.append(tool(id));
    await runLog.settled();
    expect(log.writes).toEqual([{ p: 1 }, { p: 3 }]);
    await runLog.append(tool('5'));
    await runLog.settled();
    expect(log.writes).toEqual([{ p: 1 }, { p: 3 }, { p: 1 }]);
  });

  it('joins deltas that wait together, and no others', async () => {
    const { process, runLog } = open();
    const waiting = [text('He'), text('llo'), tool('1'), text('a'), text('b'), text('c', 'n')];
    for (const event of [tool('0'), ...waiting]) await runLog.append(event);
    await runLog.settled();
    expect(process.events.slice(1).map((event) => ('text' in event ? event.text : event.type))).toEqual([
      'Hello',
      'tool_use',
      'ab',
      'c',
    ]);
  });

  it('does not change what it was given', async () => {
    const { runLog } = open();
    const [first, second] = [text('a\0'), text('b')];
    for (const event of [tool('0'), first, second]) await runLog.append(event);
    await runLog.settled();
    expect([first, second]).toEqual([text('a\0'), text('b')]);
  });

  it('brings what is known of the run with the event that told it', async () => {
    const { log, runLog } = open();
    await runLog.append(tool('1'), { hasText: true });
    await runLog.append(tool('2'));
    await runLog.settled();
    expect(log.facts).toEqual([{ hasText: true }, {}]);
  });

  it('replaces half a pair whose other half never comes', async () => {
    const { process, runLog } = open();
    await runLog.append(text('a\ud83d'));
    await runLog.append(tool('1'));
    await runLog.append(text('b\ud83d', 'n'));
    await runLog.conclude(completed);
    expect(spoken(process.events)).toEqual({ 'text m': 'a\ufffd', 'text n': 'b\ufffd' });
  });

  it('makes what PostgreSQL cannot hold storable, in a whole tree', async () => {
    const { process, runLog } = open();
    await runLog.append(tool('1', { '\0': ['\ud83d', 'a\0'] }));
    await runLog.append(text('\0'));
    await runLog.settled();
    expect(process.events).toMatchObject([
      { input: { '\ufffd': ['\ufffd', 'a\ufffd'] } },
      { text: '\ufffd' },
    ]);
  });

  it.each([
    ['no JSON', 1n],
    ['too deep to be written', deeplyNested('', 20_000)],
  ])('holds a marker in the place of an event that is %s', async (_, input) => {
    const { process, runLog } = open();
    for (const event of [tool('1'), tool('2', input), tool('3')]) await runLog.append(event);
    await runLog.settled();
    expect(process.events).toMatchObject([
      { type: 'tool_use', toolUseId: '1' },
      { type: 'raw', line: { type: 'unwritable_event', event: 'tool_use' } },
      { type: 'tool_use', toolUseId: '3' },
    ]);
  });

  it('keeps its other events, however deep one of them is nested', async () => {
    const { process, runLog } = open();
    const depths = Array.from({ length: 30 }, (_, index) => 250 * (30 - index));
    for (const depth of depths) {
      await runLog.append(tool('deep', deeplyNested('\0', depth)));
      await runLog.append(tool(String(depth)));
    }
    await runLog.settled();
    expect(process.events.filter((_, index) => index % 2 === 1)).toMatchObject(
      depths.map((depth) => ({ toolUseId: String(depth) })),
    );
  });

  it('makes the run wait once a thousand events do', async () => {
    const { process, runLog } = open();
    for (let n = 0; n < 1_000; n += 1) await runLog.append(tool(String(n)));
    expect(process.events).toHaveLength(0);
    await runLog.append(tool('one more'));
    expect(process.events).toHaveLength(1_001);
  });

  it('makes the run wait once four million characters do, and no longer', async () => {
    const { process, runLog } = open();
    const large = { content: 'x'.repeat(1024 * 1024) };
    for (let n = 0; n < 4; n += 1) await runLog.append(tool(String(n), large));
    expect(process.events).toHaveLength(0);
    await runLog.append(tool('one more', large));
    expect(process.events).toHaveLength(5);
    void runLog.append(tool('again'));
    expect(process.events).toHaveLength(5);
    await runLog.settled();
  });

  it.each<Fault>(['before', 'after'])(
    'holds everything once though the connection broke %s the database had done it',
    async (fault) => {
      const { log, process, runLog } = open();
      log.faults.push(fault);
      await runLog.append(tool('1'));
      await runLog.append(tool('2'));
      await runLog.settled();
      log.faults.push(fault);
      const { events } = await runLog.conclude(completed);
      expect(process.events.map(({ type }) => type)).toEqual(['tool_use', 'tool_use', 'completed']);
      expect(log.published).toEqual(process.events);
      expect(events).toEqual(process.events.slice(2));
    },
  );

  it('tells the run of a cancel that was asked for meanwhile', async () => {
    const { process, onCancelRequested, onLost, runLog } = open();
    await runLog.append(tool('1'));
    await runLog.settled();
    expect(onCancelRequested).not.toHaveBeenCalled();
    process.isCancelRequested = true;
    await runLog.append(tool('2'));
    await runLog.settled();
    expect(onCancelRequested).toHaveBeenCalledTimes(1);
    expect(onLost).not.toHaveBeenCalled();
  });

  it('is judged by what the database knows at the end', async () => {
    const { process, runLog } = open();
    process.isCancelRequested = true;
    await runLog.conclude(({ cancelRequested }) => ({
      kind: 'end',
      outcome: { status: cancelRequested ? 'cancelled' : 'completed' },
    }));
    expect(process.status).toBe('cancelled');
  });

  it('is closed to a run that another worker has taken over, and stops it', async () => {
    const { log, process, onLost, runLog } = open();
    process.fence += 1;
    await runLog.append(tool('1'));
    await runLog.settled();
    expect(onLost).toHaveBeenCalledTimes(1);
    await expect(runLog.append(tool('2'))).rejects.toThrow(RunLost);
    await expect(runLog.conclude(completed)).rejects.toThrow(RunLost);
    expect([process.events, log.published]).toEqual([[], []]);
  });

  it('does not take the ending that the run was given for what it wrote itself', async () => {
    const { log, process, runLog } = open();
    process.giveUp();
    await runLog.append(tool('1'));
    await runLog.settled();
    await expect(runLog.append(tool('2'))).rejects.toThrow(RunLost);
    await expect(runLog.conclude(completed)).rejects.toThrow(RunLost);
    expect(process.events.map(({ type }) => type)).toEqual(['failed']);
    expect(log.published).toEqual([]);
  });

  it('does not keep a run that is lost, whatever the database does not answer', async () => {
    const { log, onLost, runLog } = open();
    log.faults.push('hang');
    for (let n = 0; n < 999; n += 1) await runLog.append(tool(String(n)));
    const held = [runLog.append(tool('one too many')), runLog.append(tool('another'))];
    runLog.lose();
    await Promise.all(held);
    expect(onLost).toHaveBeenCalledTimes(1);
    await expect(runLog.conclude(completed)).rejects.toThrow(RunLost);
  });

  it('does not wait for the answer to its ending once the run is lost', async () => {
    const { log, runLog } = open();
    log.faults.push('hang');
    const concluding = runLog.conclude(completed);
    await tick();
    runLog.lose();
    await expect(concluding).rejects.toThrow(RunLost);
  });

  it('tries to write its ending for as long as the run may be its own', async () => {
    const { log, process, runLog } = open();
    log.faults.push('before', 'before', 'before');
    await runLog.conclude(completed);
    expect(process.status).toBe('completed');
  });
});
