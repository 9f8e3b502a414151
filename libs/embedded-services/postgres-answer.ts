import { realpath } from 'node:fs/promises';
import pg from 'pg';
import { z } from 'zod';
import { errorCode } from './os-process.js';

const ANSWER_TIMEOUT_MS = 3_000;

const ServerFactsSchema = z.object({
  directory: z.string(),
  isDurable: z.boolean(),
  maxConnections: z.int(),
});
type PostgresFacts = z.infer<typeof ServerFactsSchema>;

export type PostgresAnswer =
  | { kind: 'ready'; facts: PostgresFacts }
  /** It is there and will be ready (or gone) by and by: starting, recovering, shutting down. */
  | { kind: 'busy' }
  | { kind: 'refused'; reason: string }
  | { kind: 'silent' };

export function postgresUrl(server: { port: number; password: string }, database: string): string {
  return `postgresql://postgres:${server.password}@127.0.0.1:${server.port}/${encodeURIComponent(database)}`;
}

/** What the server at this port says to our password. Never throws. */
export async function askPostgres(server: { port: number; password: string }): Promise<PostgresAnswer> {
  try {
    const facts = await withClient(postgresUrl(server, 'postgres'), async (client) => {
      const { rows } = await client.query<Record<string, unknown>>(
        `SELECT current_setting('data_directory') AS directory,
                current_setting('fsync') = 'on' AS "isDurable",
                current_setting('max_connections')::int AS "maxConnections"`,
      );
      return ServerFactsSchema.parse(rows[0]);
    });
    return { kind: 'ready', facts: { ...facts, directory: await realpath(facts.directory) } };
  } catch (error) {
    const code = errorCode(error);
    if (code === '57P03') return { kind: 'busy' };
    // SQLSTATEs are five characters, the system's errors more
    if (code?.length === 5) return { kind: 'refused', reason: (error as Error).message };
    return { kind: 'silent' };
  }
}

/** @throws the server's error, or the connection's. */
export async function ensureDatabase(
  server: { port: number; password: string },
  database: string,
): Promise<void> {
  await withClient(postgresUrl(server, 'postgres'), async (client) => {
    const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${pg.escapeIdentifier(database)}`);
  });
}

async function withClient<T>(url: string, task: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: ANSWER_TIMEOUT_MS });
  // a connection that breaks between two queries says so here; the query says it too
  client.on('error', () => undefined);
  try {
    await client.connect();
    return await task(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}
