import { setTimeout as sleep } from 'node:timers/promises';
import { isTransient } from '../platform/prisma/database-failure.js';
import { type RunLog, STORE_RETRY_MS } from './run-log.js';

/** Asks again while the database is away, for as long as the run may still be ours. */
export async function whileOurs<T>(log: RunLog, ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (log.isLost || !isTransient(error)) throw error;
      await sleep(STORE_RETRY_MS);
    }
  }
}
