import { createHash, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';

// The advisory lock that Prisma Migrate takes: https://www.prisma.io/docs/orm/prisma-migrate/workflows/development-and-production#advisory-locking
const PRISMA_LOCK = 72_707_369;

const MIGRATIONS_TABLE = `CREATE TABLE IF NOT EXISTS "_prisma_migrations" (
  "id" VARCHAR(36) PRIMARY KEY NOT NULL,
  "checksum" VARCHAR(64) NOT NULL,
  "finished_at" TIMESTAMPTZ,
  "migration_name" VARCHAR(255) NOT NULL,
  "logs" TEXT,
  "rolled_back_at" TIMESTAMPTZ,
  "started_at" TIMESTAMPTZ NOT NULL DEFAULT now(),
  "applied_steps_count" INTEGER NOT NULL DEFAULT 0
)`;

/** A migration cannot be applied, or the database is not the one that these migrations made. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError';
}

/**
 * Applies the pending migrations, as `prisma migrate deploy` would: the same table, checksums and lock, so that either can
 * go on where the other stopped. Unlike it, needs neither Prisma's CLI nor its engine.
 * @param directory holds a folder a migration
 * @returns the names of those that it applied
 * @throws MigrationError
 */
export function applyMigrations(databaseUrl: string, directory: string): Promise<string[]> {
  return withClient(databaseUrl, async (client) => {
    await client.query('SELECT pg_advisory_lock($1)', [PRISMA_LOCK]); // until the session ends
    await client.query(MIGRATIONS_TABLE);
    const pending = await findPending(client, directory);
    for (const migration of pending) await apply(client, migration);
    return pending.map(({ name }) => name);
  });
}

/** @throws MigrationError when a migration is pending, or has failed */
export function requireMigrated(databaseUrl: string, directory: string): Promise<void> {
  return withClient(databaseUrl, async (client) => {
    const [{ exists } = { exists: null }] = (
      await client.query<{ exists: string | null }>(`SELECT to_regclass('_prisma_migrations') AS exists`)
    ).rows;
    const pending = exists === null ? await readMigrations(directory) : await findPending(client, directory);
    if (pending.length === 0) return;
    const names = pending.map(({ name }) => name).join(', ');
    throw new MigrationError(
      `Pending migrations: ${names}. Run: prisma migrate deploy (MIGRATE_ON_START is false)`,
    );
  });
}

async function withClient<T>(databaseUrl: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

async function findPending(client: pg.Client, directory: string): Promise<Migration[]> {
  const applied = await appliedMigrations(client);
  const migrations = await readMigrations(directory);
  const changed = migrations.find(
    ({ name, checksum }) => applied.has(name) && applied.get(name) !== checksum,
  );
  if (changed) throw new MigrationError(`Migration ${changed.name} was changed after it was applied.`);
  return migrations.filter(({ name }) => !applied.has(name));
}

/** The folder of this installation's migrations, whether it runs as it was written or as it was built. */
export function findMigrations(): string {
  for (let directory = dirname(fileURLToPath(import.meta.url)); ; directory = dirname(directory)) {
    const found = join(directory, 'prisma/migrations');
    if (existsSync(found)) return found;
    if (directory === dirname(directory)) throw new MigrationError('There is no folder prisma/migrations.');
  }
}

interface Migration {
  name: string;
  sql: string;
  checksum: string;
}

async function readMigrations(directory: string): Promise<Migration[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return Promise.all(
    names.sort().map(async (name) => {
      const sql = await readFile(join(directory, name, 'migration.sql'), 'utf8');
      return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
    }),
  );
}

async function appliedMigrations(client: pg.Client): Promise<Map<string, string>> {
  const { rows } = await client.query<{ migration_name: string; checksum: string; finished_at: Date | null }>(
    'SELECT migration_name, checksum, finished_at FROM "_prisma_migrations" WHERE rolled_back_at IS NULL',
  );
  const failed = rows.find((row) => row.finished_at === null);
  if (failed) {
    throw new MigrationError(
      `Migration ${failed.migration_name} failed before. Mend the database, then run: prisma migrate resolve`,
    );
  }
  return new Map(rows.map((row) => [row.migration_name, row.checksum]));
}

async function apply(client: pg.Client, { name, sql, checksum }: Migration): Promise<void> {
  const id = randomUUID();
  await client.query('INSERT INTO "_prisma_migrations" (id, checksum, migration_name) VALUES ($1, $2, $3)', [
    id,
    checksum,
    name,
  ]);
  try {
    await client.query(sql); // the simple protocol: the whole file is one transaction
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    await client.query('UPDATE "_prisma_migrations" SET logs = $2 WHERE id = $1', [id, message]);
    throw new MigrationError(`Migration ${name}: ${message}`, { cause: error });
  }
  await client.query(
    'UPDATE "_prisma_migrations" SET finished_at = now(), applied_steps_count = 1 WHERE id = $1',
    [id],
  );
}
