import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { PrismaPg } from '@prisma/adapter-pg';
import { PrismaClient } from '../../generated/prisma/client.js';
import { CONFIG, type ServerConfig } from '../config/config.js';
import { orLate } from '../timing/or-late.js';

const POOL_SIZE = 20;
const TRANSACTION_WAIT_MS = 15_000;
const CONNECT_TIMEOUT_MS = 5_000;
/** A connection that is cut without a word would keep its query for ever. */
const QUERY_TIMEOUT_MS = 15_000;
/** A server that is cut off within a transaction must not keep its locks from the others, nor their leases, for ever. */
const IDLE_TRANSACTION_MS = 5_000;
const DISCONNECT_GRACE_MS = 3_000;

/** The database. Only repositories inject it. */
@Injectable()
export class PrismaService extends PrismaClient implements OnApplicationShutdown {
  constructor(@Inject(CONFIG) config: ServerConfig) {
    super({
      // The long form quotes the arguments, prompts among them, and ends up in the log.
      errorFormat: 'minimal',
      // A burst waits for a connection; it is not told that the database is away.
      transactionOptions: { maxWait: TRANSACTION_WAIT_MS, timeout: TRANSACTION_WAIT_MS },
      adapter: new PrismaPg({
        connectionString: config.DATABASE_URL,
        max: POOL_SIZE,
        connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
        query_timeout: QUERY_TIMEOUT_MS,
        idle_in_transaction_session_timeout: IDLE_TRANSACTION_MS,
        keepAlive: true,
      }),
    });
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
