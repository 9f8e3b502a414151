import { v7 as uuid } from 'uuid';
import { WriteSide } from '../../test/support/write-side.js';
import { afterLoss } from './run-verdict.js';

describe('the inbox of a running process', () => {
  let side: WriteSide;

  beforeAll(async () => {
    side = await WriteSide.open();
  });
  afterAll(() => side.close());
  beforeEach(() => side.clear());

  const put = async (processId: string, kind: string) => {
    await side.prisma.processCommand.create({ data: { id: uuid(), processId, kind, userId: side.userId } });
  };

  it('is emptied by the owner, in the order in which it was filled, once', async () => {
    const [run, other] = [await side.run(), await side.run()];
    await side.endings.cancel(run.processId, side.userId);
    await put(run.processId, 'second');
    await put(other.processId, 'third');
    await put(run.processId, 'fourth');
    const ids = [run.processId, other.processId];
    expect(await side.commands.take('worker', ids)).toEqual([
      { processId: run.processId, kind: 'cancel', payload: {} },
      { processId: run.processId, kind: 'second', payload: {} },
      { processId: other.processId, kind: 'third', payload: {} },
      { processId: run.processId, kind: 'fourth', payload: {} },
    ]);
    expect(await side.commands.take('worker', ids)).toEqual([]);
  });

  it('gives each command once, however many look at once', async () => {
    const run = await side.run();
    for (let n = 0; n < 5; n += 1) await put(run.processId, String(n));
    const taken = await Promise.all(
      Array.from({ length: 5 }, () => side.commands.take('worker', [run.processId])),
    );
    expect(
      taken
        .flat()
        .map(({ kind }) => kind)
        .sort(),
    ).toEqual(['0', '1', '2', '3', '4']);
  });

  it('is closed to whoever does not run it', async () => {
    const run = await side.run();
    await put(run.processId, 'stop');
    expect(await side.commands.take('another', [run.processId])).toEqual([]);
    await side.endings.conclude(run, [], afterLoss);
    expect(await side.commands.take('worker', [run.processId])).toEqual([]);
    await side.claim();
    expect(await side.commands.take('worker', [run.processId])).toHaveLength(1);
  });
});
