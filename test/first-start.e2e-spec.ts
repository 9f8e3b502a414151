import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AccessToken } from '../src/auth/auth.schemas.js';
import { applyMigrations, findMigrations } from '../src/platform/prisma/migrations.js';
import { type RunningServer, startServer } from '../src/server.js';
import { ApiClient } from './support/api-client.js';
import { createStores, type TestStores } from './support/stores.js';
import { configOf } from './support/test-server.js';
import { removeLeft } from './support/left-directory.js';

let stores: TestStores;
let directories: string[] = [];
let servers: RunningServer[] = [];

beforeEach(async () => {
  stores = await createStores();
});
afterEach(async () => {
  for (const server of servers) await server.close();
  for (const directory of directories) await removeLeft(directory);
  servers = [];
  directories = [];
  await stores.drop();
});

function makeDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'claude-runner-first-start-'));
  directories.push(directory);
  return directory;
}

async function start(directory: string, environment: NodeJS.ProcessEnv = {}): Promise<RunningServer> {
  const server = await startServer(configOf(stores, directory, { ROLE: 'api', ...environment }));
  servers.push(server);
  return server;
}

/** All files of a data directory; `engine`, where workspaces lie, is a folder. */
const secretsIn = (directory: string) =>
  readdirSync(directory)
    .filter((name) => name !== 'engine')
    .sort();

const secret = (directory: string, name: string) => readFileSync(join(directory, name), 'utf8').trim();

/** Status of a sign-in with the password that lies in the directory, and of a request with the key that does. */
async function tryOut({ url }: RunningServer, directory: string) {
  const { status: login } = await new ApiClient(url, null).request<AccessToken>(
    'POST',
    '/api/v1/auth/login',
    {
      email: 'admin@claude-runner.local',
      password: secret(directory, 'admin-password'),
    },
  );
  const client = new ApiClient(url, secret(directory, 'api-key'));
  return { login, key: (await client.request('GET', '/api/v1/claude/processes')).status };
}

const GOOD = { login: 200, key: 200 };

const countRows = () =>
  stores.query(
    'SELECT (SELECT count(*)::int FROM users) AS users, (SELECT count(*)::int FROM api_keys) AS keys',
  );

describe.each(['development', 'production'])('the first start (NODE_ENV=%s)', (NODE_ENV) => {
  it('leaves a password and a key, for their owner alone and nothing else', async () => {
    const directory = join(makeDirectory(), 'not/there/yet');
    expect(await tryOut(await start(directory, { NODE_ENV }), directory)).toEqual(GOOD);
    expect(secretsIn(directory)).toEqual(['admin-password', 'api-key']);
    for (const name of secretsIn(directory)) expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
  });

  it.each(['users', 'api_keys'])(
    'that ends on its way to the row in %s locks nobody out: the next one goes on',
    async (table) => {
      const directory = makeDirectory();
      await applyMigrations(stores.databaseUrl, findMigrations());
      await stores.query(
        "CREATE FUNCTION interrupt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'The power is cut.'; END $$",
      );
      await stores.query(
        `CREATE TRIGGER interruption BEFORE INSERT ON ${table} EXECUTE FUNCTION interrupt()`,
      );
      await expect(start(directory, { NODE_ENV })).rejects.toThrow('The power is cut.');
      await stores.query(`DROP TRIGGER interruption ON ${table}`);
      const left = secretsIn(directory).map((name) => [name, secret(directory, name)]);

      expect(await tryOut(await start(directory, { NODE_ENV }), directory)).toEqual(GOOD);
      expect(await countRows()).toEqual([{ users: 1, keys: 1 }]);
      expect(secretsIn(directory)).toEqual(['admin-password', 'api-key']);
      for (const [name, content] of left) expect(secret(directory, name!)).toBe(content);
    },
  );

  it('that ended between the administrator and the file of the key is completed by the next one', async () => {
    const directory = makeDirectory();
    await start(directory, { NODE_ENV });
    await stores.query('DELETE FROM api_keys');
    rmSync(join(directory, 'api-key'));
    expect(await tryOut(await start(directory, { NODE_ENV }), directory)).toEqual(GOOD);
  });

  it.each(['admin-password', 'api-key'])('takes an empty %s for none', async (name) => {
    const directory = makeDirectory();
    writeFileSync(join(directory, name), '');
    expect(await tryOut(await start(directory, { NODE_ENV }), directory)).toEqual(GOOD);
  });

  it('of two servers at once on one directory leaves what is true', async () => {
    const directory = makeDirectory();
    await applyMigrations(stores.databaseUrl, findMigrations());
    const [first, second] = await Promise.all([
      start(directory, { NODE_ENV }),
      start(directory, { NODE_ENV }),
    ]);
    expect([await tryOut(first, directory), await tryOut(second, directory)]).toEqual([GOOD, GOOD]);
    expect(await countRows()).toEqual([{ users: 1, keys: 1 }]);
  });

  it('of two servers at once on two directories leaves no password that is nobody’s', async () => {
    const places = [makeDirectory(), makeDirectory()];
    await applyMigrations(stores.databaseUrl, findMigrations());
    const [server] = await Promise.all(places.map((directory) => start(directory, { NODE_ENV })));
    const withPassword = places.filter((directory) => existsSync(join(directory, 'admin-password')));
    expect(withPassword).toHaveLength(1);
    expect(await tryOut(server!, withPassword[0]!)).toEqual(GOOD);
  });
});

describe('a later start', () => {
  it.each([
    ['an emptied directory', () => undefined],
    ['a key that is none', () => 'nonsense'],
    ['a key that was revoked', (key: string) => key],
  ])('that finds %s leaves a new key', async (_, lyingKey) => {
    const [first, later] = [makeDirectory(), makeDirectory()];
    await start(first);
    await stores.query('UPDATE api_keys SET revoked_at = now()');
    const key = lyingKey(secret(first, 'api-key'));
    if (key !== undefined) writeFileSync(join(later, 'api-key'), key);
    writeFileSync(join(later, 'admin-password'), secret(first, 'admin-password'));
    expect(await tryOut(await start(later), later)).toEqual(GOOD);
    expect(await countRows()).toEqual([{ users: 1, keys: 2 }]);
  });

  it('in production leaves no key once there was one', async () => {
    const [first, later] = [makeDirectory(), makeDirectory()];
    await start(first, { NODE_ENV: 'production' });
    await start(later, { NODE_ENV: 'production' });
    expect(existsSync(join(later, 'api-key'))).toBe(false);
    await stores.query('UPDATE api_keys SET revoked_at = now()');
    await start(first, { NODE_ENV: 'production' });
    expect(await countRows()).toEqual([{ users: 1, keys: 1 }]);
  });
});
