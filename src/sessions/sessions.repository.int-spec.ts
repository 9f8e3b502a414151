import { randomUUID } from 'node:crypto';
import { WriteSide } from '../../test/support/write-side.js';
import { SessionsRepository } from './sessions.repository.js';

describe('SessionsRepository', () => {
  let side: WriteSide;
  let sessions: SessionsRepository;
  beforeAll(async () => {
    side = await WriteSide.open();
    sessions = new SessionsRepository(side.prisma);
  });
  afterAll(() => side.close());
  beforeEach(() => side.clear());

  const make = async () => {
    const id = randomUUID();
    await sessions.create({ id, userId: side.userId, title: null });
    return id;
  };
  const fork = (originId: string, fields: object = {}) =>
    sessions.fork({ id: randomUUID(), userId: side.userId, originId, head: null, title: null, ...fields });
  const entriesOf = (id: string) =>
    side.stores.query(
      'SELECT ordinal, uuid, head, entry::text FROM session_entries WHERE session_id = $1 ORDER BY 1',
      [id],
    );

  /** A session with an entry for each turn. */
  const makeWithTurns = async (turns: number) => {
    const id = await make();
    await side.stores.query(
      `INSERT INTO session_entries (session_id, ordinal, subpath, uuid, head, entry)
       SELECT $1, turn, '', 'uuid-' || turn, turn - 1, '{"nul":"\\u0000"}' FROM generate_series(1, $2) turn`,
      [id, turns],
    );
    await side.stores.query(
      `UPDATE sessions SET head = $2, last_ordinal = $2, cli_session_id = 'cli' WHERE id = $1`,
      [id, turns],
    );
    return id;
  };

  it('copies what was said in the turns that a fork begins with, byte by byte', async () => {
    const origin = await makeWithTurns(3);
    const [whole, part] = [randomUUID(), randomUUID()];
    expect(await fork(origin, { id: whole })).toEqual({ kind: 'forked' });
    expect(await fork(origin, { id: part, head: 1 })).toEqual({ kind: 'forked' });
    expect(await entriesOf(whole)).toEqual(await entriesOf(origin));
    expect(await entriesOf(part)).toEqual((await entriesOf(origin)).slice(0, 1));
    expect(await sessions.findOwned(side.userId, part)).toMatchObject({
      ...{ head: 1, lastOrdinal: 3, cliSessionId: 'cli', forkedFromId: origin, workspaceKey: part },
    });
  });

  it('leaves out of a fork what was said in a turn that has not ended', async () => {
    const origin = await makeWithTurns(2);
    await side.stores.query('UPDATE sessions SET head = 1 WHERE id = $1', [origin]);
    const id = randomUUID();
    await fork(origin, { id });
    expect(await entriesOf(id)).toHaveLength(1);
  });

  it('forks neither what is another’s, nor what runs, nor beyond its end', async () => {
    const origin = await makeWithTurns(1);
    const other = randomUUID();
    await side.prisma.user.create({ data: { id: other, email: 'other@x', passwordHash: '' } });
    expect(await fork(origin, { userId: other })).toEqual({ kind: 'missing' });
    expect(await fork(randomUUID())).toEqual({ kind: 'missing' });
    expect(await fork(origin, { head: 2 })).toEqual({ kind: 'too_short', head: 1 });
    await side.run({ session: { kind: 'continued', id: origin } });
    expect(await fork(origin)).toEqual({ kind: 'busy' });
    expect(await side.prisma.session.count()).toBe(1);
  });

  it('removes all but the row, which is found by nobody any more, and leaves the forks whole', async () => {
    const origin = await makeWithTurns(2);
    const id = randomUUID();
    await fork(origin, { id });
    expect(await sessions.remove(origin)).toBe('removed');
    expect(await sessions.remove(origin)).toBe('missing');
    expect(await sessions.findOwned(null, origin)).toBeNull();
    expect(await sessions.listOf(side.userId, null, 10)).toMatchObject([{ id }]);
    expect(await entriesOf(origin)).toEqual([]);
    expect(await entriesOf(id)).toHaveLength(2);
  });

  it.each(['pending', 'running'])('does not remove a session of which a process is %s', async (status) => {
    const id = await make();
    await side.submit({ session: { kind: 'continued', id } });
    await side.stores.query('UPDATE processes SET status = $1::process_status', [status]);
    expect(await sessions.remove(id)).toBe('busy');
    await side.stores.query(`UPDATE processes SET status = 'completed'`);
    expect(await sessions.remove(id)).toBe('removed');
  });

  it('either takes a process or is removed, when both are asked for at once', async () => {
    for (let round = 0; round < 20; round += 1) {
      const id = await make();
      const [submitted, removed] = await Promise.allSettled([
        side.submit({ session: { kind: 'continued', id } }),
        sessions.remove(id),
      ]);
      const isTaken = submitted.status === 'fulfilled';
      expect([isTaken, removed]).toMatchObject([
        isTaken,
        { status: 'fulfilled', value: isTaken ? 'busy' : 'removed' },
      ]);
      await side.clear();
    }
  });

  it('adds up what the processes of a session have used', async () => {
    const [used, unused] = [await make(), await make()];
    for (let count = 0; count < 3; count += 1)
      await side.submit({ session: { kind: 'continued', id: used } });
    await side.stores.query(`
      UPDATE processes SET status = 'completed', cost_usd = 0.25,
        usage = '{"inputTokens":3000000000,"outputTokens":2,"cacheReadInputTokens":3,"cacheCreationInputTokens":4}'
      WHERE id IN (SELECT id FROM processes LIMIT 2)`);
    const figures = await sessions.findFigures([used, unused]);
    expect(figures.get(used)).toEqual({
      processCount: 3,
      isBusy: true,
      costUsd: 0.5,
      usage: {
        inputTokens: 6_000_000_000,
        outputTokens: 4,
        cacheReadInputTokens: 6,
        cacheCreationInputTokens: 8,
      },
    });
    expect(figures.has(unused)).toBe(false);
  });

  it('adds up whatever a CLI has said of itself', async () => {
    const id = await make();
    for (let count = 0; count < 2; count += 1) await side.submit({ session: { kind: 'continued', id } });
    await side.stores.query(`
      UPDATE processes SET cost_usd = 1.7e308,
        usage = '{"inputTokens":1.5,"outputTokens":1e300,"cacheReadInputTokens":3,"cacheCreationInputTokens":4}'`);
    expect((await sessions.findFigures([id])).get(id)).toMatchObject({
      costUsd: 2e12,
      usage: {
        inputTokens: 4,
        outputTokens: 2e12,
        cacheReadInputTokens: 6,
        cacheCreationInputTokens: 8,
      },
    });
  });
});
