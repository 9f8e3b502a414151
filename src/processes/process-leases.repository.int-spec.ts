import { v7 as uuid } from 'uuid';
import { LEASE_MS, WriteSide } from '../../test/support/write-side.js';
import { afterLoss } from './run-verdict.js';

describe('leases', () => {
  let side: WriteSide;

  beforeAll(async () => {
    side = await WriteSide.open();
  });
  afterAll(() => side.close());
  beforeEach(() => side.clear());

  const renew = (owner: string, runs: { processId: string; fence: number }[]) =>
    side.leases.renew(owner, runs, LEASE_MS);

  it('are prolonged for their owner, for what still runs', async () => {
    const [run, ended, foreign] = [await side.run(), await side.run(), await side.run()];
    await side.endings.conclude(ended, [], () => ({ kind: 'end', outcome: { status: 'completed' } }));
    await side.stores.query(`UPDATE processes SET owner = 'another' WHERE id = $1`, [foreign.processId]);
    await side.expire(run.processId);
    const renewed = await renew('worker', [run, ended, foreign, { processId: uuid(), fence: 1 }]);
    expect(renewed).toEqual([{ processId: run.processId, fence: run.fence, cancelRequested: false }]);
    expect(await side.claims.findExpired(10)).toEqual([]);
    expect((await side.find(run.processId)).leaseUntil!.getTime()).toBeGreaterThan(Date.now());
  });

  it('tell of a cancel that was asked for', async () => {
    const run = await side.run();
    await side.endings.cancel(run.processId, side.userId);
    expect(await renew('worker', [run])).toMatchObject([{ processId: run.processId, cancelRequested: true }]);
  });

  it('tell of a claim that came in between, by its fence', async () => {
    const run = await side.run();
    await side.endings.conclude(run, [], afterLoss);
    const again = await side.claim();
    expect(await renew('worker', [run])).toMatchObject([{ processId: run.processId, fence: again.fence }]);
  });
});
