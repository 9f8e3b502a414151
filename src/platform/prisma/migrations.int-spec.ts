import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import pg from 'pg';
import { createStores, type TestStores } from '../../../test/support/stores.js';
import { startTcpProxy } from '../../../test/support/tcp-proxy.js';
import { applyMigrations, findMigrations, MigrationError } from './migrations.js';

/** Prisma's own CLI, with its schema engine from npm. */
async function prisma(
  databaseUrl: string,
  ...args: string[]
): Promise<{ code: number | null; output: string }> {
  const child = spawn(resolve('node_modules/.bin/prisma'), args, {
    env: {
      PATH: process.env.PATH,
      DATABASE_URL: databaseUrl,
      PRISMA_SCHEMA_ENGINE_BINARY: resolve('scripts/schema-engine.mjs'),
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
      CHECKPOINT_DISABLE: '1',
    },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.once('close', done));
  return { code, output };
}

/** Every column and index, but for those of Prisma's own table. */
const catalogueOf = (stores: TestStores) =>
  stores.query(`
    SELECT table_name AS name, concat_ws(' ', column_name, data_type, udt_name, is_nullable, column_default) AS what
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_prisma_migrations'
    UNION ALL
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> '_prisma_migrations'
    ORDER BY 1, 2`);

describe('applyMigrations', () => {
  let stores: TestStores;

  beforeEach(async () => {
    stores = await createStores();
  });
  afterEach(() => stores.drop());

  const withMigration = (sql: string) => {
    const directory = mkdtempSync(join(tmpdir(), 'migrations-'));
    cpSync(findMigrations(), directory, { recursive: true });
    mkdirSync(join(directory, '99990101000000_another'));
    writeFileSync(join(directory, '99990101000000_another/migration.sql'), sql);
    return directory;
  };

  it('leaves what Prisma calls up to date', async () => {
    await applyMigrations(stores.databaseUrl, findMigrations());
    expect(await prisma(stores.databaseUrl, 'migrate', 'status')).toMatchObject({
      code: 0,
      output: expect.stringContaining('Database schema is up to date') as string,
    });
  });

  it('makes the tables and indexes that schema.prisma describes, and no others', async () => {
    await applyMigrations(stores.databaseUrl, findMigrations());
    const described = await createStores();
    const { output } = await prisma(
      described.databaseUrl,
      ...['migrate', 'diff', '--from-empty', '--to-schema', 'prisma/schema.prisma', '--script'],
    );
    await described.query(output.slice(output.indexOf('-- CreateSchema')));
    expect(await catalogueOf(stores)).toEqual(await catalogueOf(described));
    await described.drop();
  });

  it('goes on where Prisma stopped', async () => {
    expect(await prisma(stores.databaseUrl, 'migrate', 'deploy')).toMatchObject({ code: 0 });
    expect(await applyMigrations(stores.databaseUrl, findMigrations())).toEqual([]);
  });

  it('applies each once, though several servers start together', async () => {
    const applied = await Promise.all(
      Array.from({ length: 5 }, () => applyMigrations(stores.databaseUrl, findMigrations())),
    );
    expect(applied.filter((names) => names.length > 0)).toHaveLength(1);
  });

  it('leaves nothing of a migration that fails, and says so at this start and at the next', async () => {
    const directory = withMigration('CREATE TABLE half (id int); SELECT no_such_function();');
    await expect(applyMigrations(stores.databaseUrl, directory)).rejects.toThrow(
      /99990101000000_another: .*no_such_function/,
    );
    await expect(applyMigrations(stores.databaseUrl, directory)).rejects.toThrow(/failed before/);
    expect(await stores.query(`SELECT 1 FROM pg_tables WHERE tablename = 'half'`)).toEqual([]);
  });

  it('leaves nothing of a migration whose connection breaks, and applies it when it is asked again', async () => {
    await applyMigrations(stores.databaseUrl, findMigrations());
    const proxy = await startTcpProxy(stores.databaseUrl);
    proxy.swallowAnswers({ to: /CREATE TABLE whole/, times: 1 });
    const waits: string[] = [];
    const applying = applyMigrations(proxy.url, withMigration('CREATE TABLE whole (id int)'), {
      patienceMs: 60_000,
      onWait: (what) => waits.push(what),
    });
    expect(await applying).toEqual(['99990101000000_another']);
    expect([proxy.swallowed, waits]).toEqual([1, [expect.stringContaining('trying again')]]);
    await proxy.close();
  });

  it('waits for another server, and notices that the database falls silent meanwhile', async () => {
    const proxy = await startTcpProxy(stores.databaseUrl);
    const other = new pg.Client({ connectionString: stores.databaseUrl });
    await other.connect();
    await other.query('SELECT pg_advisory_lock(72707369)');
    let hasNoticed: (what: string) => void = () => undefined;
    const noticed = new Promise<string>((resolve) => (hasNoticed = resolve));
    const applying = applyMigrations(proxy.url, findMigrations(), {
      patienceMs: 60_000,
      onWait: (what) => hasNoticed(what),
    });
    const isWaiting = `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'`;
    while ((await stores.query(isWaiting)).length === 0);
    proxy.blackHole();
    expect(await noticed).toMatch(/Query read timeout|connect/);
    proxy.restore();
    await other.end();
    expect(await applying).not.toEqual([]);
    await proxy.close();
  });

  it('notices that the database falls silent while it works on a migration, and applies it once', async () => {
    await applyMigrations(stores.databaseUrl, findMigrations());
    const proxy = await startTcpProxy(stores.databaseUrl);
    const other = new pg.Client({ connectionString: stores.databaseUrl });
    await other.connect();
    await other.query('BEGIN; LOCK TABLE users');
    let hasNoticed: (what: string) => void = () => undefined;
    const noticed = new Promise<string>((resolve) => (hasNoticed = resolve));
    const sql = 'LOCK TABLE users; CREATE TABLE once (id int)';
    const applying = applyMigrations(proxy.url, withMigration(sql), {
      patienceMs: 60_000,
      onWait: (what) => hasNoticed(what),
    });
    const isAtIt = `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    while ((await stores.query(isAtIt)).length === 0);
    proxy.blackHole();
    expect(await noticed).toMatch(/Connection terminated/);
    proxy.restore();
    await other.end();
    expect(await applying).toEqual(['99990101000000_another']);
    const named = `SELECT 1 FROM _prisma_migrations WHERE migration_name = '99990101000000_another'`;
    expect(await stores.query(named)).toHaveLength(1);
    await proxy.close();
  });

  it('can be told not to wait any longer for another server', async () => {
    const other = new pg.Client({ connectionString: stores.databaseUrl });
    await other.connect();
    await other.query('SELECT pg_advisory_lock(72707369)');
    const stop = new AbortController();
    const applying = applyMigrations(stores.databaseUrl, findMigrations(), {
      patienceMs: 60_000,
      signal: stop.signal,
    });
    stop.abort();
    await expect(applying).rejects.toMatchObject({ name: 'AbortError' });
    await other.end();
  });

  it('refuses a database whose migration was changed afterwards', async () => {
    await applyMigrations(stores.databaseUrl, withMigration('SELECT 1'));
    const changed = applyMigrations(stores.databaseUrl, withMigration('SELECT 2'));
    await expect(changed).rejects.toThrow(MigrationError);
    await expect(changed).rejects.toThrow(/was changed/);
  });
});
