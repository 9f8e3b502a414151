import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { PrismaPg } from '@prisma/adapter-pg';
import { PrismaClient } from '../../generated/prisma/client.js';
import { CONFIG, type ServerConfig } from '../config/config.js';
import { orLate } from '../timing/or-late.js';
import { openPool } from './connections.js';
import { DirectStatements } from './direct-statements.js';
import { StatementNames } from './statement-names.js';

const TRANSACTION_WAIT_MS = 15_000;
/** A server that is cut off within a transaction must not keep its locks from the others, nor their leases, for ever. */
const IDLE_TRANSACTION_MS = 3_000;
const DISCONNECT_GRACE_MS = 3_000;

interface Pool {
  size: number;
  connectTimeoutMs: number;
  /** A connection that is cut without a word would keep its query for ever: after that it is given up, see `openPool`. */
  queryTimeoutMs: number;
}

class Database extends PrismaClient implements OnApplicationShutdown {
  /** For single statements that a caller waits for. */
  readonly direct: DirectStatements;

  constructor({ DATABASE_URL }: ServerConfig, { size, connectTimeoutMs, queryTimeoutMs }: Pool) {
    const names = new StatementNames();
    const pool = openPool({
      connectionString: DATABASE_URL,
      max: size,
      connectionTimeoutMillis: connectTimeoutMs,
      query_timeout: queryTimeoutMs,
      idle_in_transaction_session_timeout: IDLE_TRANSACTION_MS,
    });
    super({
      // The long form quotes the arguments, prompts among them, and ends up in the log.
      errorFormat: 'minimal',
      // A burst waits for a connection; it is not told that the database is away.
      transactionOptions: { maxWait: TRANSACTION_WAIT_MS, timeout: TRANSACTION_WAIT_MS },
      adapter: new PrismaPg(pool, {
        disposeExternalPool: true,
        statementNameGenerator: (query) => names.of(query),
      }),
    });
    this.direct = new DirectStatements(pool, names);
  }

  /** `$connect` succeeds without a server; only a query tells. */
  async ping(): Promise<void> {
    await this.$queryRaw`SELECT 1`;
  }

  async onApplicationShutdown(): Promise<void> {
    // A query that is never answered would hold it up for ever.
    await orLate(this.$disconnect(), DISCONNECT_GRACE_MS);
  }
}

/** The database. Only repositories inject it. */
@Injectable()
export class PrismaService extends Database {
  constructor(@Inject(CONFIG) config: ServerConfig) {
    super(config, { size: 20, connectTimeoutMs: 5_000, queryTimeoutMs: 5_000 });
  }
}

/** The database for what cannot wait: by a connection of its own, which nothing else occupies, and which is soon given up. */
@Injectable()
export class UrgentPrismaService extends Database {
  constructor(@Inject(CONFIG) config: ServerConfig) {
    super(config, { size: 1, connectTimeoutMs: 2_000, queryTimeoutMs: 2_000 });
  }
}
