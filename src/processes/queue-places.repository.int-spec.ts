import { v7 as uuid } from 'uuid';
import { WriteSide } from '../../test/support/write-side.js';
import { QueuePlacesRepository } from './queue-places.repository.js';

let side: WriteSide;
let places: QueuePlacesRepository;

beforeAll(async () => {
  side = await WriteSide.open();
  places = new QueuePlacesRepository(side.prisma);
});
afterAll(() => side.close());
beforeEach(() => side.clear());

const positions = async (ids: string[]) => {
  const found = await places.find(ids);
  return ids.map((id) => found.get(id)?.position);
};

const park = (id: string, minutes: number) =>
  side.stores.query(`UPDATE processes SET retry_at = now() + $2 * interval '1 minute' WHERE id = $1`, [
    id,
    minutes,
  ]);

const addUser = () => side.addUser();

/** Ended so long ago, after so long a run. */
async function ended(secondsAgo: number, runSeconds: number): Promise<void> {
  const { processId } = await side.startedRun();
  await side.endings.conclude({ processId, fence: 1 }, [], () => ({
    kind: 'end',
    outcome: { status: 'completed' },
  }));
  await side.stores.query(
    `UPDATE processes SET finished_at = now() - $2 * interval '1 second',
       started_at = now() - ($2 + $3) * interval '1 second' WHERE id = $1`,
    [processId, secondsAgo, runSeconds],
  );
}

describe('places in the queue', () => {
  it('are the order in which the processes are claimed', async () => {
    const users = [await addUser(), await addUser(), await addUser()];
    const ids: string[] = [];
    for (let n = 0; n < 15; n += 1)
      ids.push(await side.submit({ userId: users[n % 3 === 0 ? 0 : n % 2]!, priority: n % 4 }));
    const found = await places.find(ids);
    const inOrder = ids.toSorted((a, b) => found.get(a)!.position - found.get(b)!.position);
    const claimed: string[] = [];
    for (const _ of ids) claimed.push((await side.claim()).id);
    expect(claimed).toEqual(inOrder);
  });

  it('were told in the log of each as they were when it came', async () => {
    const [a, b] = [await addUser(), await addUser()];
    await side.submit({ userId: a });
    await side.submit({ userId: a });
    for (const userId of [a, b]) {
      const id = await side.submit({ userId, priority: 9 });
      const [created, queued] = await side.events(id);
      const [position] = await positions([id]);
      expect(created).toMatchObject({ type: 'created', process: { queuePosition: position } });
      expect(queued).toMatchObject({ type: 'queued', position });
    }
  });

  it('of what is parked are behind all others, by its time', async () => {
    const [a, b, c, d] = [await side.submit(), await side.submit(), await side.submit(), await side.submit()];
    await park(a, 10);
    await park(b, 5);
    expect(await positions([a, b, c, d])).toEqual([4, 3, 1, 2]);
    expect((await places.find([a, c])).get(a)?.retryAt?.getTime()).toBeGreaterThan(Date.now());
    expect((await places.find([a, c])).get(c)?.retryAt).toBeNull();
    await park(a, -1);
    expect(await positions([a, b, c, d])).toEqual([1, 4, 2, 3]);
  });

  it('are those of what waits alone', async () => {
    const id = await side.submit();
    await side.claim();
    expect(await positions([id, uuid()])).toEqual([undefined, undefined]);
    expect(await places.find([])).toEqual(new Map());
  });

  it('tell who leaves next, of all and of one user', async () => {
    const [a, b] = [await addUser(), await addUser()];
    expect(await places.findFirst(null)).toBeNull();
    for (let n = 0; n < 3; n += 1) await side.submit({ userId: a });
    await side.claim();
    await side.submit({ userId: b });
    const first = [await places.findFirst(a), await places.findFirst(b), await places.findFirst(null)];
    expect(first.map((place) => place!.position).toSorted()).toEqual([1, 1, 2]);
    expect(first[2]!.position).toBe(1);
  });
});

describe('the traffic', () => {
  it('is what runs, and how long took what ended lately', async () => {
    expect(await places.traffic()).toEqual({ running: 0, meanRunMs: null });
    await ended(60, 10);
    await ended(120, 20);
    await ended(2 * 24 * 60 * 60, 1000);
    await side.endings.cancel(await side.submit(), side.userId);
    await side.submit();
    await side.claim();
    const { running, meanRunMs } = await places.traffic();
    expect(running).toBe(1);
    expect(meanRunMs).toBeCloseTo(15_000, -1);
  });

  it('and the depth tell the parked from those whose turn it may be', async () => {
    expect(await places.depth()).toEqual({ pending: 0, parked: 0, running: 0, oldestAgeMs: null });
    const ids = [await side.submit(), await side.submit(), await side.submit()];
    await side.claim();
    await park(ids[1]!, 5);
    await side.stores.query(`UPDATE processes SET created_at = now() - interval '1 minute' WHERE id = $1`, [
      ids[2],
    ]);
    const depth = await places.depth();
    expect(depth).toMatchObject({ pending: 2, parked: 1, running: 1 });
    expect(Math.floor(depth.oldestAgeMs! / 60_000)).toBe(1);
  });
});
