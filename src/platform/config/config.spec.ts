import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { ConfigError, readConfig, requireStores } from './config.js';
import { EnvironmentSchema } from './environment.schemas.js';

const STORES = { DATABASE_URL: 'postgresql://localhost/db', REDIS_URL: 'redis://localhost' };

describe('readConfig', () => {
  it('needs nothing: an empty environment is a laptop in demo mode', () => {
    const config = readConfig({});
    expect(config).toMatchObject({
      NODE_ENV: 'development',
      ROLE: 'all',
      PORT: 3000,
      HOST: '127.0.0.1',
      demo: true,
    });
    expect(isAbsolute(config.DATA_DIR)).toBe(true);
  });

  it.each([
    ['PORT', 'abc'],
    ['PORT', '70000'],
    ['ROLE', 'both'],
    ['NODE_ENV', 'staging'],
    ['LOG_LEVEL', 'loud'],
    ['DATABASE_URL', 'mysql://localhost/db'],
    ['REDIS_URL', 'localhost:6379'],
    ['PUBLIC_URL', 'claude.example.com'],
    ['TRUST_PROXY', '10.0.0.0/8,everyone'],
    ['MIGRATE_ON_START', 'yes'],
    ['ADMIN_EMAIL', 'nobody'],
    ['ADMIN_PASSWORD', 'short'],
    ['CLAUDE_TIMEOUT_MS', '-1'],
    ['EXECUTE_MAX_WAIT_MS', '1.5'],
    ['WORKER_CONCURRENCY', '0'],
    ['SHUTDOWN_GRACE_MS', ''.padEnd(12, '9')],
    ['CLAUDE_API_MAX_RETRIES', '-1'],
    ['WORKSPACE_QUOTA_MB', '0'],
    ['WORKSPACE_MAX_FILE_MB', 'large'],
    ['QUEUE_MAX_PENDING', '0'],
    ['QUEUE_MAX_PENDING_PER_USER', 'many'],
    ['EVENT_RETENTION_DAYS', '-1'],
    ['PROCESS_RETENTION_DAYS', '0.5'],
    ['SESSION_RETENTION_DAYS', 'forever'],
    ['CLAUDE_SANDBOX', 'maybe'],
    ['CLAUDE_NETWORK', 'some'],
  ])('names %s when its value is wrong (%s), and does not repeat the value', (name, value) => {
    const read = () => readConfig({ [name]: value });
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(new RegExp(`^${name}: `));
    expect(read).not.toThrow(`: ${value}`);
  });

  it('tells everything that is wrong at once', () => {
    expect(() => readConfig({ PORT: 'x', ROLE: 'y' })).toThrow(/ROLE: .*\nPORT: |PORT: .*\nROLE: /);
  });

  it('takes an empty variable for one that is not set', () => {
    expect(readConfig({ PORT: '', ANTHROPIC_API_KEY: '' })).toMatchObject({ PORT: 3000, demo: true });
  });

  it('reads secrets from files, without their last newline', () => {
    const file = join(mkdtempSync(join(tmpdir(), 'secret-')), 'key');
    writeFileSync(file, 'sk-ant-secret\n');
    expect(readConfig({ ANTHROPIC_API_KEY_FILE: file })).toMatchObject({
      ANTHROPIC_API_KEY: 'sk-ant-secret',
      demo: false,
    });
  });

  it('names a secret that is given twice, or whose file cannot be read', () => {
    expect(() => readConfig({ REDIS_URL: STORES.REDIS_URL, REDIS_URL_FILE: '/etc/hostname' })).toThrow(
      /^REDIS_URL_FILE: /,
    );
    expect(() => readConfig({ REDIS_URL_FILE: '/nowhere/at/all' })).toThrow(
      'REDIS_URL_FILE: cannot be read (ENOENT)',
    );
  });

  it('refuses an address of the Messages API without a key for it: that would be demo mode by mistake', () => {
    expect(() => readConfig({ ANTHROPIC_BASE_URL: 'http://localhost' })).toThrow(/^ANTHROPIC_API_KEY: /);
  });

  it('refuses demo mode and embedded stores in production, by name', () => {
    const read = () => readConfig({ NODE_ENV: 'production' });
    for (const name of ['ANTHROPIC_API_KEY', 'DATABASE_URL', 'REDIS_URL'])
      expect(read).toThrow(`${name}: must be set`);
    expect(readConfig({ NODE_ENV: 'production', ANTHROPIC_API_KEY: 'sk', ...STORES }).demo).toBe(false);
  });

  it('asks a server that runs no processes for no key', () => {
    const config = readConfig({ NODE_ENV: 'production', ROLE: 'api', ...STORES });
    expect(config).toMatchObject({ demo: false, servesApi: true, runsProcesses: false });
  });
});

it('A server without npm start needs its stores named', () => {
  expect(() => requireStores(readConfig({}))).toThrow(/^DATABASE_URL: .*\nREDIS_URL: /);
  expect(requireStores(readConfig(STORES))).toMatchObject(STORES);
});

describe('.env.example', () => {
  const example = readFileSync(resolve('.env.example'), 'utf8');
  const listed = [...example.matchAll(/^# ([A-Z_]+)=(.*)$/gm)].map(([, name = '', value = '']) => ({
    name,
    value,
  }));

  it('lists exactly what the server reads', () => {
    expect(listed.map(({ name }) => name).sort()).toEqual(Object.keys(EnvironmentSchema.shape).sort());
  });

  it('gives the defaults that hold', () => {
    const given = Object.fromEntries(
      listed.filter(({ value }) => value !== '').map(({ name, value }) => [name, value]),
    );
    expect(readConfig(given)).toEqual(readConfig({}));
  });

  it('is what the README says as well', () => {
    const readme = readFileSync(resolve('README.md'), 'utf8');
    expect(listed.filter(({ name }) => !readme.includes(`\`${name}\``))).toEqual([]);
  });
});
