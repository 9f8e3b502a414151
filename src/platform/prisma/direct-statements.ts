import pg from 'pg';
import { Prisma } from '../../generated/prisma/client.js';
import type { StatementNames } from './statement-names.js';

/** Takes statements: Prisma's client, within a transaction or not, or the pool beneath it. */
export interface StatementClient {
  $queryRaw<T>(query: TemplateStringsArray | Prisma.Sql, ...values: unknown[]): Promise<T>;
}

/** What rows hold, prompts among it, does not belong into a log. */
const INDISCREET = ['detail', 'where', 'internalQuery'] as const;

// What node-postgres leaves as a text, Prisma's client makes a number of.
const types = new pg.TypeOverrides();
types.setTypeParser(pg.types.builtins.INT8, BigInt);

/**
 * Puts statements to the pool beneath Prisma: by the same connections, and with the same prepared plans, but without Prisma's
 * interpreter in between. For what a caller waits for; never within a transaction, which has a connection of its own. Of the
 * types that are asked for so, which its test names, rows are what `$queryRaw` gives, and bytes a `Buffer`; failures are those of
 * node-postgres.
 */
export class DirectStatements implements StatementClient {
  constructor(
    private readonly pool: pg.Pool,
    private readonly names: StatementNames,
  ) {}

  async $queryRaw<T>(query: TemplateStringsArray | Prisma.Sql, ...values: unknown[]): Promise<T> {
    const { text, values: parameters } = 'sql' in query ? query : Prisma.sql(query, ...values);
    const name = this.names.of({ sql: text });
    try {
      const { rows } = await this.pool.query({ text, values: parameters, name, types });
      return rows as T;
    } catch (error) {
      if (error instanceof pg.DatabaseError) for (const field of INDISCREET) error[field] = undefined;
      throw error;
    }
  }
}
