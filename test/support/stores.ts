import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import pg from 'pg';

/** A PostgreSQL database and a Redis database that one test file has for itself. */
export interface TestStores {
  databaseUrl: string;
  redisUrl: string;
  query: <Row extends pg.QueryResultRow>(sql: string, values?: unknown[]) => Promise<Row[]>;
  redis: Redis;
  drop: () => Promise<void>;
}

export async function createStores(): Promise<TestStores> {
  const base = required('TEST_DATABASE_URL');
  const name = `test_${randomBytes(6).toString('hex')}`;
  await administer(base, `CREATE DATABASE ${name}`);
  const databaseUrl = withPath(base, name);
  // Each Jest worker has a number of its own, and Redis 16 databases.
  const redisUrl = withPath(
    required('TEST_REDIS_URL'),
    String(Number(process.env.JEST_WORKER_ID ?? '1') % 16),
  );
  const redis = new Redis(redisUrl);
  await redis.flushdb();
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 2 });
  // A connection that is closed may be killed with its database first.
  pool.on('error', () => undefined);
  return {
    databaseUrl,
    redisUrl,
    redis,
    query: async (sql, values) => (await pool.query(sql, values)).rows as never,
    drop: async () => {
      redis.disconnect();
      await pool.end();
      await administer(base, `DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

async function administer(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(sql).finally(() => client.end());
}

const withPath = (url: string, path: string) =>
  Object.assign(new URL(url), { pathname: `/${path}` }).toString();

function required(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: test/support/services.mjs has not run.`);
  return value;
}
