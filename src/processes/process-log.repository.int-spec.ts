import { STARTED, WriteSide } from '../../test/support/write-side.js';
import { isTransient } from '../platform/prisma/database-failure.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import type { Run, RunBatch } from './process-log.repository.js';

const PAGE = { limit: 100, maxBytes: Number.MAX_SAFE_INTEGER };

describe('the logs of processes, in PostgreSQL', () => {
  let side: WriteSide;

  beforeAll(async () => {
    side = await WriteSide.open();
  });
  afterAll(() => side.close());
  beforeEach(() => side.clear());

  const said = (...texts: string[]): NewProcessEvent[] =>
    texts.map((text) => ({ type: 'text', messageId: 'm', text }));
  const batch = (
    { processId, fence, lastSeq }: Run & { lastSeq: number },
    events: NewProcessEvent[],
    facts: RunBatch['facts'] = {},
  ): RunBatch => ({ run: { processId, fence }, lastSeq, events, facts });
  /** What was written after the first two, which come with the submit. */
  const written = async (processId: string) =>
    (await side.log.read(processId, 2, PAGE)).map((event) => [
      event.seq,
      'text' in event ? event.text : event.type,
    ]);

  it('number what is appended without a gap, and give back what one then reads', async () => {
    const run = await side.run();
    const first = await side.log.append([batch(run, said('a', 'b'))]);
    const second = await side.log.append([batch({ ...run, lastSeq: 4 }, said('c'))]);
    const returned = [first, second].flatMap((answer) => answer.get(run.processId)!.events);
    expect(returned).toEqual(await side.log.read(run.processId, 2, PAGE));
    expect(await written(run.processId)).toEqual([
      [3, 'a'],
      [4, 'b'],
      [5, 'c'],
    ]);
    expect(await side.log.lastSeqs([run.processId])).toEqual(new Map([[run.processId, 5]]));
  });

  it('hold once what is appended again because the answer was lost, even while the first write is under way', async () => {
    const run = await side.run();
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => side.log.append([batch(run, said('a', 'b'))])),
    );
    expect(answers.filter((answer) => answer.size > 0)).toHaveLength(1);
    expect(await side.log.append([batch(run, said('a', 'b'))])).toEqual(new Map());
    expect(await written(run.processId)).toEqual([
      [3, 'a'],
      [4, 'b'],
    ]);
  });

  it('of several runs are written by one statement, without those that are not the writer’s any more', async () => {
    const runs = [await side.run(), await side.run(), await side.run(), await side.run()];
    const [mine, taken, ended, ahead] = runs as [(typeof runs)[0], ...typeof runs];
    await side.endings.conclude(ended!, [], () => ({ kind: 'end', outcome: { status: 'cancelled' } }));
    const answer = await side.log.append([
      batch({ ...taken!, fence: taken!.fence + 1 }, said('of another fence')),
      batch(ended!, said('after the end')),
      batch({ ...ahead!, lastSeq: ahead!.lastSeq + 1 }, said('with a gap')),
      batch(mine, said('a', 'b')),
    ]);
    expect([...answer.keys()]).toEqual([mine.processId]);
    expect(await written(mine.processId)).toEqual([
      [3, 'a'],
      [4, 'b'],
    ]);
    expect(await written(taken!.processId)).toEqual([]);
    expect(await written(ended!.processId)).toEqual([[3, 'cancelled']]);
    expect(await written(ahead!.processId)).toEqual([]);
  });

  it('are written by two at once in any order of their runs without a deadlock', async () => {
    const runs = [await side.run(), await side.run(), await side.run()];
    for (let round = 0; round < 20; round += 1) {
      const batches = runs.map((run) => batch({ ...run, lastSeq: run.lastSeq + round }, said(String(round))));
      const answers = await Promise.all([side.log.append(batches), side.log.append(batches.toReversed())]);
      for (const { processId } of runs)
        expect(answers.filter((answer) => answer.has(processId))).toHaveLength(1);
    }
  });

  it('are all or nothing: what cannot be written of one keeps the others out as well', async () => {
    const [run, other] = [await side.run(), await side.run()];
    const refused = side.log.append([batch(run, said('a')), batch(other, said('\0'))]);
    await expect(refused).rejects.toMatchObject({ code: '22P05' });
    expect(await refused.catch(isTransient)).toBe(false);
    expect([await written(run.processId), await written(other.processId)]).toEqual([[], []]);
  });

  it('bring what their events say of the process: its start, its first text', async () => {
    const run = await side.run();
    expect(await side.find(run.processId)).toMatchObject({ hasStarted: false, startedAt: null });
    await side.log.append([batch(run, STARTED.events, STARTED.facts)]);
    const started = await side.find(run.processId);
    expect(started).toMatchObject({
      hasStarted: true,
      startedAt: expect.any(Date) as Date,
      firstTokenAt: null,
      engine: 'cli',
      model: 'a-model',
      cliVersion: '2.1.0',
    });
    const session = await side.prisma.session.findUniqueOrThrow({ where: { id: started.sessionId } });
    expect(session.cliSessionId).toBe('its-own-id');

    await side.log.append([batch({ ...run, lastSeq: 3 }, said('a'), { hasText: true })]);
    const { firstTokenAt } = await side.find(run.processId);
    expect(firstTokenAt).not.toBeNull();
    await side.log.append([batch({ ...run, lastSeq: 4 }, said('b'), { hasText: true })]);
    expect(await side.find(run.processId)).toMatchObject({ firstTokenAt, startedAt: started.startedAt });
  });

  it('tell their writer of a cancel that was asked for meanwhile', async () => {
    const run = await side.run();
    const before = await side.log.append([batch(run, said('a'))]);
    await side.endings.cancel(run.processId, side.userId);
    const after = await side.log.append([batch({ ...run, lastSeq: 3 }, said('b'))]);
    expect([before, after].map((answer) => answer.get(run.processId)?.cancelRequested)).toEqual([
      false,
      true,
    ]);
  });

  it('are read in pages that are bounded in events and in bytes, and never empty before the end', async () => {
    const run = await side.run();
    const large = 'x'.repeat(1_000);
    await side.log.append([batch(run, said(large, large, large))]);
    const read = async (after: number, bounds: { limit: number; maxBytes: number }) =>
      (await side.log.read(run.processId, after, bounds)).map(({ seq }) => seq);
    expect(await read(0, { limit: 3, maxBytes: 1_000_000 })).toEqual([1, 2, 3]);
    expect(await read(2, { limit: 100, maxBytes: 1_500 })).toEqual([3, 4]);
    expect(await read(3, { limit: 100, maxBytes: 1 })).toEqual([4]);
    expect(await read(5, { limit: 100, maxBytes: 1 })).toEqual([]);
  });

  it('hold any text that PostgreSQL can, byte for byte', async () => {
    const run = await side.run();
    const text = 'ä ✓ 😀 \\ " \u0001 \u2028 \\u0000';
    await side.log.append([batch(run, said(text))]);
    expect(await written(run.processId)).toEqual([[3, text]]);
  });
});
