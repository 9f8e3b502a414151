/* eslint jest/expect-expect: ["error", { "assertFunctionNames": ["expect*"] }] */
import fc from 'fast-check';
import pg from 'pg';
import { v7 as uuid } from 'uuid';
import { LEASE_MS, WriteSide } from '../../test/support/write-side.js';
import { FairOrderRepository } from './fair-order.repository.js';

let side: WriteSide;
let order: FairOrderRepository;

beforeAll(async () => {
  side = await WriteSide.open();
  order = new FairOrderRepository(side.prisma);
});
afterAll(() => side.close());
beforeEach(() => side.clear());

const addUser = () => side.addUser();

async function submit(userId: string, count = 1, priority = 5): Promise<string[]> {
  const ids: string[] = [];
  for (let n = 0; n < count; n += 1) ids.push(await side.submit({ userId, priority }));
  return ids;
}

/** What the keeper does on every server, every few seconds. */
async function keepOrder(): Promise<void> {
  for (const userId of await order.findOutOfOrder(100)) await order.putInOrder(userId);
  expect(await order.findOutOfOrder(100)).toEqual([]);
}

interface Claimed {
  id: string;
  userId: string;
}

async function claim(count: number): Promise<Claimed[]> {
  const claimed: Claimed[] = [];
  for (let n = 0; n < count; n += 1) {
    const row = await side.claims.claim('worker', LEASE_MS);
    if (row) claimed.push({ id: row.id, userId: row.userId });
  }
  return claimed;
}

const ranksOf = async (userId: string) =>
  (
    await side.stores.query<{ rank: string }>(
      `SELECT fair_rank AS rank FROM processes WHERE user_id = $1 AND status = 'pending' ORDER BY fair_rank`,
      [userId],
    )
  ).map(({ rank }) => BigInt(rank));

/** The counts of claims of two callers never differ by more than one, in whichever stretch of the claims. */
function expectAlternating(claims: { userId: string }[], a: string, b: string): void {
  const theirs = claims.filter(({ userId }) => userId === a || userId === b).map(({ userId }) => userId);
  expect(theirs.length).toBeGreaterThan(1);
  theirs.slice(1).forEach((userId, index) => expect(userId).not.toBe(theirs[index]));
}

describe('the order of claims', () => {
  it('lets nobody wait behind the 500 of another', async () => {
    const [many, one] = [await addUser(), await addUser()];
    await submit(many, 500);
    const [id] = await submit(one);
    expect((await claim(2)).map((claimed) => claimed.id)).toContain(id);
  });

  it('alternates between callers who both have work waiting, whoever came first', async () => {
    const [early, late] = [await addUser(), await addUser()];
    await submit(early, 20);
    await claim(5);
    await submit(late, 10);
    const claims = await claim(15);
    expectAlternating(claims, early, late);
    expect(claims.filter(({ userId }) => userId === late)).toHaveLength(
      Math.floor(claims.length / 2) + (claims[0]?.userId === late ? 1 : 0),
    );
  });

  it('remembers nobody’s past: who has had hundreds of turns alone is not held back by them', async () => {
    const [user, newcomer] = [await addUser(), await addUser()];
    await submit(user, 200);
    await claim(200);
    await submit(newcomer, 5);
    await submit(user, 5);
    expectAlternating(await claim(10), user, newcomer);
  });

  it('lets a stream of newcomers not stand before anybody', async () => {
    const regular = await addUser();
    const users = await Promise.all(Array.from({ length: 10 }, addUser));
    for (const user of users) await submit(user);
    await submit(regular, 2);
    const waited: number[] = [];
    for (let turns = 0, since = 0; turns < 2;) {
      // Before each claim another user comes for the first time.
      await submit(await addUser());
      since += 1;
      const [claimed] = await claim(1);
      if (claimed?.userId !== regular) continue;
      waited.push(since);
      [turns, since] = [turns + 1, 0];
    }
    // Ten are before it, and of those who come later some, whose place in the round is an earlier one.
    expect(Math.max(...waited)).toBeLessThan(40);
  });

  it('by priority is among a caller’s own alone', async () => {
    const [a, b] = [await addUser(), await addUser()];
    const [lowA, lowB] = [await submit(a, 3, 1), await submit(b, 3, 1)];
    const before = [await ranksOf(a), await ranksOf(b)] as const;
    const [middle] = await submit(a, 1, 5);
    const [high] = await submit(a, 1, 9);
    const [alsoMiddle] = await submit(a, 1, 5);
    const after = [await ranksOf(a), await ranksOf(b)] as const;
    expect(after[1]).toEqual(before[1]);
    expect(after[0].slice(0, 3)).toEqual(before[0]);
    expect(after[0]).toHaveLength(6);

    const claims = await claim(9);
    const idsOf = (user: string) => claims.filter(({ userId }) => userId === user).map(({ id }) => id);
    expect(idsOf(a)).toEqual([high, middle, alsoMiddle, ...lowA]);
    expect(idsOf(b)).toEqual(lowB);
    expectAlternating(claims.slice(0, 6), a, b);
  });

  it('closes the gap that cancelled processes leave: the rest does not wait through their turns', async () => {
    const [a, b] = [await addUser(), await addUser()];
    const ids = await submit(a, 50);
    await submit(b, 10);
    for (const id of ids.slice(0, 40)) await side.endings.cancel(id, a);
    await keepOrder();
    const claims = await claim(20);
    expectAlternating(claims, a, b);
    expect(claims.filter(({ userId }) => userId === a).map(({ id }) => id)).toEqual(ids.slice(40));
  });

  it('lets the next submit find the gap as well', async () => {
    const [a, b] = [await addUser(), await addUser()];
    for (const id of await submit(a, 20)) await side.endings.cancel(id, a);
    await submit(b, 5);
    await submit(a, 5);
    expectAlternating(await claim(10), a, b);
  });

  /** As if their workers had been lost, and their callers allowed another attempt. */
  const giveBack = (userId: string) =>
    side.stores.query(
      `UPDATE processes SET status = 'pending', owner = NULL, lease_until = NULL, attempt = 2 WHERE user_id = $1`,
      [userId],
    );

  it('lets what comes back be the next, for it has had its turn', async () => {
    const [lost, ...others] = await Promise.all(Array.from({ length: 6 }, addUser));
    for (const userId of others) await submit(userId, 4);
    const [id] = await submit(lost!);
    const claims = await claim(9);
    expect(claims.map((claimed) => claimed.id)).toContain(id);
    await giveBack(lost!);
    await keepOrder();
    expect((await claim(1))[0]?.id).toBe(id);
  });

  it('does not let what comes back at once go before everybody else', async () => {
    const [a, b] = [await addUser(), await addUser()];
    await submit(a, 20);
    await claim(20);
    await submit(b, 10);
    await claim(2);
    await giveBack(a);
    await keepOrder();
    const claims = await claim(10);
    // What was overtaken while it ran is first; after that they take turns.
    expect(claims[0]?.userId).toBe(a);
    expectAlternating(claims.slice(1), a, b);
  });

  it('lets what is parked keep its rank, and takes no turn for it', async () => {
    const [a, b] = [await addUser(), await addUser()];
    const parked = await submit(a, 10);
    await side.stores.query(`UPDATE processes SET retry_at = now() + interval '1 hour' WHERE user_id = $1`, [
      a,
    ]);
    await submit(b, 5);
    await submit(a, 5);
    await keepOrder();
    const claims = await claim(12);
    expect(claims).toHaveLength(10);
    expectAlternating(claims, a, b);
    expect(claims.map(({ id }) => id)).not.toContain(parked[0]);
  });

  it('gives turns first to what can run: those behind it in its session hold nothing up', async () => {
    const [a, b] = [await addUser(), await addUser()];
    const sessionId = uuid();
    const chain = [await side.submit({ userId: a, session: { kind: 'new', id: sessionId } })];
    for (let n = 1; n < 10; n += 1)
      chain.push(
        await side.submit({ userId: a, session: { kind: 'continued', id: sessionId }, priority: n }),
      );
    await submit(b, 20);
    const [other] = await submit(a, 1, 0);
    const claims = await claim(4);
    expectAlternating(claims, a, b);
    expect(claims.flatMap(({ id, userId }) => (userId === a ? [id] : []))).toEqual([chain[0], other]);

    // Only one of a session runs. The others wait for its end, and then for one turn each.
    for (let n = 0; n < 3; n += 1) {
      await claim(2);
      await side.endings.conclude({ processId: chain[n]!, fence: 1 }, [], () => ({
        kind: 'end',
        outcome: { status: 'completed' },
      }));
      await keepOrder();
      expect((await claim(2)).map(({ id }) => id)).toContain(chain[n + 1]);
    }
  });

  it('leaves a row alone that is just being claimed, and gives its turn to nobody', async () => {
    const user = await addUser();
    const low = await submit(user, 3, 1);
    const [first] = await ranksOf(user);
    const claiming = new pg.Client({ connectionString: side.stores.databaseUrl });
    await claiming.connect();
    await claiming.query('BEGIN');
    await claiming.query(`UPDATE processes SET status = 'running' WHERE id = $1`, [low[0]]);
    const [high] = await submit(user, 1, 9).finally(async () => {
      await claiming.query('COMMIT');
      await claiming.end();
    });
    expect(await ranksOf(user)).not.toContain(first);
    expect((await claim(3)).map(({ id }) => id)).toEqual([high, low[1], low[2]]);
  });

  it('gives each of a caller’s own a turn of its own, while submits and claims cross', async () => {
    const user = await addUser();
    await submit(user, 30, 1);
    const submitting = Promise.all(Array.from({ length: 30 }, (_, n) => submit(user, 1, n % 10)));
    const claiming = Promise.all(Array.from({ length: 4 }, () => claim(10)));
    const [submitted, claims] = await Promise.all([submitting, claiming]);
    const ids = claims.flat().map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    const ranks = await ranksOf(user);
    expect(new Set(ranks).size).toBe(ranks.length);
    expect(ids.length + ranks.length).toBe(30 + submitted.flat().length);
    await keepOrder();
    const priorities = (await claim(ranks.length)).map(async ({ id }) => (await side.find(id)).priority);
    const left = await Promise.all(priorities);
    expect(left).toEqual(left.toSorted((a, b) => b - a));
  });
});

describe('the order of claims, whatever is submitted and cancelled,', () => {
  interface Waiting {
    id: string;
    priority: number;
  }

  /** Callers sit in a round and take turns; each keeps an order of their own. */
  class Round {
    private readonly waiting: Waiting[][];
    /** Whose turn was the last. */
    private last: number;

    constructor(private readonly users: string[]) {
      this.waiting = users.map(() => []);
      this.last = users.length - 1;
    }

    add(user: number, added: Waiting): void {
      const own = this.waiting[user]!;
      const place = own.findIndex(({ priority }) => priority < added.priority);
      own.splice(place < 0 ? own.length : place, 0, added);
    }

    remove(user: number, index: number): string | null {
      const own = this.waiting[user]!;
      return own.splice(index % own.length, 1)[0]?.id ?? null;
    }

    take(): Claimed | null {
      for (let step = 1; step <= this.users.length; step += 1) {
        const user = (this.last + step) % this.users.length;
        const first = this.waiting[user]!.shift();
        if (!first) continue;
        this.last = user;
        return { id: first.id, userId: this.users[user]! };
      }
      return null;
    }
  }

  const USERS = 4;
  const user = fc.nat(USERS - 1);
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('submit'), user, number: fc.nat(9) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('claim'), user, number: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel'), user, number: fc.nat(9) }) },
  );

  it('is that of callers who sit in a round', async () => {
    const users = await Promise.all(Array.from({ length: USERS }, addUser));
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        await side.clear();
        // Who sits where is shown by a first turn of each.
        for (const userId of users) await submit(userId);
        const seated = (await claim(USERS)).map(({ userId }) => userId);
        expect(seated.toSorted()).toEqual(users.toSorted());
        const round = new Round(seated);
        const [claimed, expected]: [Claimed[], (Claimed | null)[]] = [[], []];
        for (const { kind, user: seat, number } of steps) {
          const userId = seated[seat]!;
          if (kind === 'submit') {
            const [id] = await submit(userId, 1, number);
            round.add(seat, { id: id!, priority: number });
          } else if (kind === 'cancel') {
            const id = round.remove(seat, number);
            if (id !== null) await side.endings.cancel(id, userId);
            await keepOrder();
          } else {
            claimed.push(...(await claim(number + 1)));
            expected.push(...Array.from({ length: number + 1 }, () => round.take()));
          }
        }
        claimed.push(...(await claim(steps.length)));
        expected.push(...Array.from({ length: steps.length }, () => round.take()));
        expect(claimed).toEqual(expected.filter((next) => next !== null));
      }),
      { numRuns: 40 },
    );
  });
});
