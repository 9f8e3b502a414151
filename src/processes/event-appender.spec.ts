import { Logger } from '@nestjs/common';
import fc from 'fast-check';
import { type Fault, FakeLog, tick } from '../../test/support/fake-log.js';
import { EventAppender } from './event-appender.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import { type RunLog, RunLost } from './run-log.js';

const MARKER = { type: 'raw', line: { type: 'unwritable_event', event: 'tool_use' } };

const tool = (toolUseId: string): NewProcessEvent => ({
  type: 'tool_use',
  toolUseId,
  name: 'Read',
  input: {},
});
const isPoison = (event: NewProcessEvent) =>
  event.type === 'tool_use' && event.toolUseId.startsWith('poison');

/** A worker with runs of these names, each with its log. */
function open<Name extends string>(...names: Name[]) {
  const log = new FakeLog();
  const appender = new EventAppender(log.repository, log.endings, log.channel);
  const lost: string[] = [];
  const entries = names.map((name) => [
    name,
    appender.open(log.process(name).run, {
      onCancelRequested: jest.fn(),
      onLost: () => void lost.push(name),
    }),
  ]);
  const runs = Object.fromEntries(entries) as Record<Name, RunLog>;
  const settled = () => Promise.all(names.map((name) => runs[name].settled()));
  return { log, runs, lost, settled };
}

const written = (log: FakeLog, name: string) =>
  log.process(name).events.map((event) => ('toolUseId' in event ? event.toolUseId : event.type));

describe('the appender of a worker', () => {
  beforeAll(() => void Logger.overrideLogger(false));

  it('writes what comes to an idle log at once, and what comes meanwhile together, of whichever run', async () => {
    const { log, runs, settled } = open('a', 'b', 'c');
    const release = log.hold();
    await runs.a.append(tool('1'));
    for (const id of ['2', '3']) await runs.a.append(tool(id));
    await runs.b.append(tool('4'));
    await runs.c.append(tool('5'));
    expect(log.writes).toEqual([]);
    release();
    await settled();
    expect(log.writes).toEqual([{ a: 1 }, { a: 2, b: 1, c: 1 }]);
    await runs.b.append(tool('6'));
    await settled();
    expect(log.writes).toEqual([{ a: 1 }, { a: 2, b: 1, c: 1 }, { b: 1 }]);
  });

  describe('that gets what only goes on with a text', () => {
    beforeEach(() => void jest.useFakeTimers({ doNotFake: ['setImmediate', 'nextTick', 'queueMicrotask'] }));
    afterEach(() => void jest.useRealTimers());

    const text = (messageId = 'm', type: 'text' | 'thinking' = 'text'): NewProcessEvent => ({
      ...{ type, messageId, text: 'Said.' },
    });
    const summary: NewProcessEvent = { type: 'message', messageId: 'm', turn: 1, text: 'Said.' };
    const pause = async (ms = 0) => {
      jest.advanceTimersByTime(ms);
      for (let turn = 0; turn < 5; turn += 1) await tick();
    };

    it('lets it wait for more, of whichever run, and not for long', async () => {
      const { log, runs } = open('a', 'b');
      for (const run of [runs.a, runs.b]) await run.append(text());
      await pause();
      expect(log.writes).toEqual([{ a: 1 }, { b: 1 }]);
      await runs.a.append(text());
      await pause(6);
      for (const event of [text(), summary]) await runs.b.append(event);
      await pause(3);
      expect(log.writes).toHaveLength(2);
      await pause(1);
      expect(log.writes.slice(2)).toEqual([{ a: 1, b: 2 }]);
    });

    it('does not forget it where it comes while a write is on its way', async () => {
      const { log, runs } = open('a');
      const release = log.hold();
      for (let n = 0; n < 3; n += 1) await runs.a.append(text());
      release();
      await pause();
      expect(log.writes).toEqual([{ a: 1 }]);
      await pause(10);
      expect(log.writes).toEqual([{ a: 1 }, { a: 1 }]);
    });

    it.each([
      ['another message', text('n')],
      ['another kind of text', text('m', 'thinking')],
      ['anything else', tool('1')],
    ])('writes it at once with %s', async (_what, event) => {
      const { log, runs } = open('a');
      await runs.a.append(text());
      await pause();
      for (const each of [text(), event]) await runs.a.append(each);
      await pause();
      expect(log.writes).toEqual([{ a: 1 }, { a: 2 }]);
    });

    it('does not let it wait where somebody waits for it', async () => {
      const { log, runs, settled } = open('a');
      await runs.a.append(text());
      await pause();
      await runs.a.append(text());
      await settled();
      expect(log.writes).toEqual([{ a: 1 }, { a: 1 }]);
      await runs.a.append(text());
      await runs.a.conclude(() => ({ kind: 'end', outcome: { status: 'completed' } }));
      expect(log.process('a').events.map(({ type }) => type)).toEqual(['text', 'text', 'text', 'completed']);
    });
  });

  it('puts no more into one statement than it should hold, and lets nobody wait behind a busy run for ever', async () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'] as const;
    const { log, runs, settled } = open(...names);
    const release = log.hold();
    await runs.a.append(tool('first'));
    const held = names.flatMap((name) =>
      Array.from({ length: 1_000 }, (_, n) => runs[name].append(tool(String(n)))),
    );
    release();
    await Promise.all([...held, settled()]);
    const sizes = log.writes.map((write) => Object.values(write).reduce((sum, count) => sum + count, 0));
    expect(sizes).toEqual([1, 5_000, 3_000]);
    for (const name of names.slice(1)) expect(written(log, name)).toHaveLength(1_000);
  });

  it('writes the logs of all runs whole and in order, whatever breaks in between', async () => {
    const step = fc.record({
      name: fc.constantFrom('a', 'b', 'c'),
      fault: fc.oneof({ weight: 9, arbitrary: fc.constant(null) }, fc.constantFrom<Fault>('before', 'after')),
      pause: fc.nat(3),
      isPoison: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { log, runs, settled, lost } = open('a', 'b', 'c');
        log.isPoison = isPoison;
        for (const [n, { name, fault, pause, ...poison }] of steps.entries()) {
          if (fault) log.faults.push(fault);
          const event: NewProcessEvent = { type: 'text', messageId: String(n), text: 'Said.' };
          await runs[name as 'a'].append(event);
          await runs[name as 'a'].append(tool(`${poison.isPoison ? 'poison ' : ''}${n}`));
          for (let turn = 0; turn < pause; turn += 1) await tick();
        }
        await settled();
        const expected = (name: string) =>
          steps.flatMap((step, n) => (step.name !== name ? [] : ['text', step.isPoison ? 'raw' : String(n)]));
        for (const name of ['a', 'b', 'c']) {
          expect(written(log, name)).toEqual(expected(name));
          expect(log.published.filter(({ processId }) => processId === name)).toEqual(
            log.process(name).events,
          );
        }
        expect(lost).toEqual([]);
      }),
      { numRuns: 15 },
    );
  });

  describe('that meets an event which cannot be written', () => {
    it('finds it by halving, puts a marker in its place, and writes everything else as it is', async () => {
      const { log, runs, settled, lost } = open('a', 'b', 'c');
      log.isPoison = isPoison;
      const release = log.hold();
      await runs.c.append(tool('first'));
      for (const id of ['1', '2', 'poison', '4', '5']) await runs.a.append(tool(id), { hasText: id === '1' });
      for (const id of ['6', '7']) await runs.b.append(tool(id));
      release();
      await settled();
      expect(written(log, 'a')).toEqual(['1', '2', 'raw', '4', '5']);
      expect(log.process('a').events[2]).toMatchObject(MARKER);
      expect(written(log, 'b')).toEqual(['6', '7']);
      expect(log.facts.filter(({ hasText }) => hasText !== undefined)).toHaveLength(1);
      expect(log.published.filter(({ processId }) => processId === 'a')).toEqual(log.process('a').events);
      expect(lost).toEqual([]);
    });

    it('ends the run whose marker cannot be written either, says why, and no other', async () => {
      const { log, runs, settled, lost } = open('a', 'b', 'c');
      log.isPoison = (event) => isPoison(event) || event.type === 'raw';
      const release = log.hold();
      await runs.b.append(tool('first'));
      for (const id of ['1', 'poison', '3']) await runs.a.append(tool(id));
      for (const run of [runs.b, runs.c]) await run.append(tool('2'));
      release();
      await settled();
      expect(lost).toEqual(['a']);
      await expect(runs.a.append(tool('4'))).rejects.toMatchObject({
        message: 'The log cannot be written.',
        cause: { code: '22021' },
      });
      expect([written(log, 'b'), written(log, 'c')]).toEqual([['first', '2'], ['2']]);
      await runs.b.append(tool('5'));
      await settled();
      expect(written(log, 'b')).toEqual(['first', '2', '5']);
    });

    it('can still end such a run, after what could be written', async () => {
      const { log, runs, settled } = open('a');
      log.isPoison = (event) => isPoison(event) || event.type === 'raw';
      for (const id of ['1', '2', 'poison', '3']) await runs.a.append(tool(id));
      await settled();
      const failed = () => ({ kind: 'end', outcome: { status: 'failed' } }) as const;
      await expect(runs.a.conclude(failed)).rejects.toThrow('The log cannot be written.');
      await runs.a.conclude(failed);
      expect(written(log, 'a')).toEqual(['1', '2', 'failed']);
    });
  });

  describe('whose answers get lost', () => {
    it('writes once what several runs wrote together, and goes on with each', async () => {
      const { log, runs, settled, lost } = open('a', 'b');
      const release = log.hold();
      await runs.a.append(tool('1'));
      for (const run of [runs.a, runs.b]) await run.append(tool('2'));
      log.faults.push('after');
      release();
      await settled();
      for (const run of [runs.a, runs.b]) await run.append(tool('3'));
      await settled();
      expect([written(log, 'a'), written(log, 'b')]).toEqual([
        ['1', '2', '3'],
        ['2', '3'],
      ]);
      expect(lost).toEqual([]);
    });

    it.each<[string, (Fault | null)[]]>([
      // The append, its repetition, the question for the runs, what a wrote, what b wrote.
      ['asks how far the logs are', ['after', null, 'before']],
      ['reads what the first run wrote', ['after', null, null, 'before']],
      ['reads what the second run wrote', ['after', null, null, null, 'before']],
    ])('counts no write twice when the connection breaks again while it %s', async (_, faults) => {
      const { log, runs, settled, lost } = open('a', 'b');
      const release = log.hold();
      await runs.a.append(tool('1'));
      for (const run of [runs.a, runs.b]) await run.append(tool('2'));
      log.faults.push(...faults);
      release();
      await settled();
      for (const run of [runs.a, runs.b]) await run.append(tool('3'));
      await settled();
      expect(lost).toEqual([]);
      for (const name of ['a', 'b'])
        expect(log.published.filter(({ processId }) => processId === name)).toEqual(log.process(name).events);
      expect(written(log, 'a')).toEqual(['1', '2', '3']);
    });
  });

  describe('in an outage', () => {
    it('holds everything back, and writes it when the database is there again', async () => {
      const { log, runs, settled, lost } = open('a', 'b');
      log.faults.push('before', 'before');
      await runs.a.append(tool('1'));
      await runs.b.append(tool('2'));
      await runs.a.append(tool('3'));
      await settled();
      expect([written(log, 'a'), written(log, 'b')]).toEqual([['1', '3'], ['2']]);
      expect(lost).toEqual([]);
    });

    it('lets go of a run that is lost in the middle, and writes the others', async () => {
      const { log, runs, settled, lost } = open('a', 'b');
      const release = log.hold();
      await runs.a.append(tool('1'));
      await runs.a.append(tool('2'));
      await runs.b.append(tool('3'));
      log.faults.push('before');
      runs.a.lose();
      release();
      await settled();
      expect(lost).toEqual(['a']);
      expect(written(log, 'b')).toEqual(['3']);
      expect(log.writes.at(-1)).toEqual({ b: 1 });
      await expect(runs.a.append(tool('4'))).rejects.toThrow(RunLost);
    });
  });

  it('loses the run that is another’s by now, and no other', async () => {
    const { log, runs, settled, lost } = open('a', 'b', 'c');
    const release = log.hold();
    await runs.c.append(tool('0'));
    for (const run of [runs.a, runs.b]) await run.append(tool('1'));
    log.process('a').fence += 1;
    release();
    await settled();
    expect(lost).toEqual(['a']);
    expect([written(log, 'a'), written(log, 'b')]).toEqual([[], ['1']]);
  });

  it('keeps writing the others while it waits to learn what became of one', async () => {
    const { log, runs, settled, lost } = open('a', 'b');
    const release = log.hold();
    await runs.b.append(tool('0'));
    for (const run of [runs.a, runs.b]) await run.append(tool('1'));
    log.process('a').giveUp();
    log.faults.push(null, 'before', null, 'before');
    release();
    await settled();
    await runs.b.append(tool('2'));
    await settled();
    expect(lost).toEqual(['a']);
    expect(written(log, 'b')).toEqual(['0', '1', '2']);
    expect(log.published.filter(({ processId }) => processId === 'b')).toEqual(log.process('b').events);
  });
});
