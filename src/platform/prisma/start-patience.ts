import { setTimeout as sleep } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { isStoreOutage } from './database-failure.js';

const PAUSE_MS = 500;

/** The database was away for longer than a start waits for it. */
export class DatabaseAwayError extends Error {
  override readonly name = 'DatabaseAwayError';
}

export interface StartPatience {
  /** How long a database that is away is waited for; 0: it is asked once. */
  patienceMs: number;
  /** Ends the wait. */
  signal?: AbortSignal | undefined;
  /** Told the first time that there is something to wait for. */
  onWait?: ((what: string) => void) | undefined;
}

const logger = new Logger('Start');

/**
 * Does what a start asks of the database, and does it again while the database is away.
 * @param act has a bound for each of its questions, and may be broken off anywhere and begun again. What it is given tells that
 * somebody is there: the patience begins anew.
 * @throws DatabaseAwayError; an AbortError at the signal; whatever `act` throws but for an outage
 */
export async function whileStarting<T>(
  act: (isThere: () => void) => Promise<T>,
  { patienceMs, signal, onWait = (what) => logger.warn(what) }: StartPatience,
): Promise<T> {
  let since = performance.now();
  for (let isFirst = true; ; isFirst = false) {
    try {
      return await act(() => (since = performance.now()));
    } catch (error) {
      signal?.throwIfAborted();
      if (!isStoreOutage(error)) throw error;
      if (performance.now() - since >= patienceMs)
        throw new DatabaseAwayError(
          `no answer for ${Math.round((performance.now() - since) / 1000)} s (${wordsOf(error)})`,
          { cause: error },
        );
      if (isFirst)
        onWait(`The database does not answer (${wordsOf(error)}); trying again for ${patienceMs} ms.`);
    }
    await sleep(PAUSE_MS, undefined, { signal });
  }
}

/** One line. Prisma says several, and the last of them is what has happened. */
function wordsOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  const [words = ''] = message.trim().split('\n').slice(-1);
  return words === '' ? (code ?? 'unknown') : words;
}
