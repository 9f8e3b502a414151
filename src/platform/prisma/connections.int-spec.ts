import type pg from 'pg';
import { createStores, type TestStores } from '../../../test/support/stores.js';
import { startTcpProxy, type TcpProxy } from '../../../test/support/tcp-proxy.js';
import { openPool, PATIENT } from './connections.js';

const SIZE = 5;

/** Connections that are dead, though nobody was told: the network is well again, and they are not. */
describe('a pool', () => {
  let stores: TestStores;
  let proxy: TcpProxy;
  let pool: pg.Pool;

  beforeAll(async () => {
    stores = await createStores();
  });
  afterAll(() => stores.drop());
  beforeEach(async () => {
    proxy = await startTcpProxy(stores.databaseUrl);
    pool = openPool({ connectionString: proxy.url, max: SIZE, query_timeout: 3000 });
    // As many connections as there may be.
    await Promise.all(Array.from({ length: SIZE }, () => pool.query('SELECT pg_sleep(0.1)')));
  });
  afterEach(async () => {
    await pool.end();
    await proxy.close();
  });

  const killAll = () => {
    proxy.blackHole();
    proxy.restore();
  };

  it('costs one question its time, not one for each connection', async () => {
    expect(pool.totalCount).toBe(SIZE);
    killAll();
    await expect(pool.query('SELECT 1')).rejects.toThrow('Query read timeout');
    const answers = Array.from({ length: SIZE }, () => pool.query<{ one: number }>('SELECT 1 AS one'));
    for (const { rows } of await Promise.all(answers)) expect(rows).toEqual([{ one: 1 }]);
  });

  it('does not take back what died within a transaction, and lets its end fail at once', async () => {
    const client = await pool.connect();
    await client.query('BEGIN');
    killAll();
    await expect(client.query('SELECT 1')).rejects.toThrow('Query read timeout');
    await expect(client.query('ROLLBACK')).rejects.not.toThrow('Query read timeout');
    client.release();
    expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  });

  it('has its times in the zone that they are read as, whatever the database is set to', async () => {
    const { pathname } = new URL(stores.databaseUrl);
    await stores.query(`ALTER DATABASE "${pathname.slice(1)}" SET timezone = 'America/New_York'`);
    const fresh = openPool({ connectionString: stores.databaseUrl });
    const { rows } = await fresh.query('SHOW timezone');
    await fresh.end();
    await stores.query(`ALTER DATABASE "${pathname.slice(1)}" RESET timezone`);
    expect(rows).toEqual([{ TimeZone: 'UTC' }]);
  });

  it('waits longer for a statement that says so', async () => {
    await expect(pool.query({ text: 'SELECT pg_sleep(5)' })).rejects.toThrow('Query read timeout');
    const patient = await pool.query({ text: `\n  ${PATIENT} SELECT 1 AS one FROM pg_sleep(5)` });
    expect(patient.rows).toEqual([{ one: 1 }]);
  });
});
