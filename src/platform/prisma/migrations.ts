import { createHash, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { every } from '../timing/every.js';
import { LATE, orLate } from '../timing/or-late.js';
import { cut } from './connections.js';
import { isStoreOutage } from './database-failure.js';
import { type StartPatience, whileStarting } from './start-patience.js';

// The advisory lock that Prisma Migrate takes: https://www.prisma.io/docs/orm/prisma-migrate/workflows/development-and-production#advisory-locking
const PRISMA_LOCK = 72_707_369;

const ANSWER_TIMEOUT_MS = 5_000;
const LOCK_POLL_MS = 250;
const GOODBYE_MS = 1_000;
/** A migration may take as long as it takes. */
const UNLIMITED_MS = 2 ** 31 - 1;
/** How often somebody looks whether it is still worked on, and how often that may be in doubt. */
const WATCH_MS = 2_000;
const MOST_DOUBTS = 2;
/** Of a server that was cut off while it held the lock: the others need not wait for PostgreSQL's TCP to notice. */
const IDLE_SESSION_MS = 10_000;

const ASKED_ONCE: StartPatience = { patienceMs: 0 };

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
 * @param patience with a database that is away. Another server that migrates is waited for without end.
 * @returns the names of those that it applied
 * @throws MigrationError; DatabaseAwayError; AbortError
 */
export function applyMigrations(
  databaseUrl: string,
  directory: string,
  patience = ASKED_ONCE,
): Promise<string[]> {
  return whileStarting(
    (isThere) =>
      withClient(databaseUrl, async (client) => {
        isThere();
        await takeLock(client, isThere, patience.signal);
        await client.query(MIGRATIONS_TABLE);
        const pending = await findPending(client, directory);
        for (const migration of pending) {
          patience.signal?.throwIfAborted();
          await apply(client, migration, databaseUrl);
          isThere();
        }
        return pending.map(({ name }) => name);
      }),
    patience,
  );
}

/** @throws MigrationError when a migration is pending, or has failed; DatabaseAwayError; AbortError */
export function requireMigrated(
  databaseUrl: string,
  directory: string,
  patience = ASKED_ONCE,
): Promise<void> {
  return whileStarting(
    () => withClient(databaseUrl, (client) => requireNonePending(client, directory)),
    patience,
  );
}

async function requireNonePending(client: pg.Client, directory: string): Promise<void> {
  const [{ exists } = { exists: null }] = (
    await client.query<{ exists: string | null }>(`SELECT to_regclass('_prisma_migrations') AS exists`)
  ).rows;
  const pending = exists === null ? await readMigrations(directory) : await findPending(client, directory);
  if (pending.length === 0) return;
  const names = pending.map(({ name }) => name).join(', ');
  throw new MigrationError(
    `Pending migrations: ${names}. Run: prisma migrate deploy (MIGRATE_ON_START is false)`,
  );
}

/** Until the session ends. By short questions: one that waits could not be told from one that is never answered. */
async function takeLock(
  client: pg.Client,
  isThere: () => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const ask = { text: 'SELECT pg_try_advisory_lock($1) AS taken', values: [PRISMA_LOCK] };
  while (!(await client.query<{ taken: boolean }>(ask)).rows[0]?.taken) {
    isThere();
    await sleep(LOCK_POLL_MS, undefined, { signal });
  }
}

async function withClient<T>(databaseUrl: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({
    connectionString: databaseUrl,
    connectionTimeoutMillis: ANSWER_TIMEOUT_MS,
    query_timeout: ANSWER_TIMEOUT_MS,
    keepAlive: true,
  });
  client.on('error', () => undefined); // told to whoever asks next
  try {
    await client.connect();
    await limitIdleness(client);
    return await use(client);
  } finally {
    // A database that is away does not take the good-bye either.
    if ((await orLate(client.end(), GOODBYE_MS)) === LATE) cut(client);
  }
}

async function limitIdleness(client: pg.Client): Promise<void> {
  // Not every version has both.
  await client.query(
    `SELECT set_config(name, $1, false) FROM pg_settings
    WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout')`,
    [String(IDLE_SESSION_MS)],
  );
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

/** In one transaction with its row: one that is broken off has left nothing, and is applied by the next start. */
async function apply(
  client: pg.Client,
  { name, sql, checksum }: Migration,
  databaseUrl: string,
): Promise<void> {
  const id = randomUUID();
  try {
    await client.query('BEGIN');
    const whole = { text: sql, query_timeout: UNLIMITED_MS };
    await whileAtWork(client, databaseUrl, () => client.query(whole));
    await client.query(
      `INSERT INTO "_prisma_migrations" (id, checksum, migration_name, finished_at, applied_steps_count)
      VALUES ($1, $2, $3, clock_timestamp(), 1)`,
      [id, checksum, name],
    );
    await client.query('COMMIT');
  } catch (error) {
    if (isStoreOutage(error) && !isOutOfTime(error)) throw error;
    const message = error instanceof Error ? error.message : String(error);
    await client.query('ROLLBACK');
    await client.query(
      'INSERT INTO "_prisma_migrations" (id, checksum, migration_name, logs) VALUES ($1, $2, $3, $4)',
      [id, checksum, name, message],
    );
    throw new MigrationError(`Migration ${name}: ${message}`, { cause: error });
  }
}

/** query_canceled, lock_not_available: by the limits of the database's own, which is there. */
const isOutOfTime = (error: unknown) => ['57014', '55P03'].includes((error as { code?: string }).code ?? '');

/**
 * Waits for as long as the database works on it. A connection of its own asks: one that has fallen silent looks the same as one
 * whose question takes long, and is cut. A database that refuses to be asked is there.
 */
async function whileAtWork(
  client: pg.Client,
  databaseUrl: string,
  ask: () => Promise<unknown>,
): Promise<void> {
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  // The state is not told everywhere.
  const isAtWork = `SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND coalesce(state NOT LIKE 'idle%', true)`;
  let doubts = 0;
  let isOver = false;
  const watching = every(
    WATCH_MS,
    async () => {
      const isSeen = await withClient(databaseUrl, (watcher) => watcher.query(isAtWork, [rows[0]?.pid])).then(
        ({ rowCount }) => rowCount === 1,
        (error: unknown) => error instanceof pg.DatabaseError,
      );
      doubts = isSeen ? 0 : doubts + 1;
      if (doubts >= MOST_DOUBTS && !isOver) cut(client);
    },
    () => undefined,
  );
  try {
    await ask();
  } finally {
    isOver = true;
    watching.stop();
  }
}
