import type { Redis } from 'ioredis';
import { ConfigError } from '../config/config.js';
import { LATE, orLate } from '../timing/or-late.js';

const TIMEOUT_MS = 2_000;
const KEEPS_EVERYTHING = 'noeviction';

/**
 * A Redis that evicts loses wake-ups when its memory is full. One that does not say, because it is away, is taken as it is.
 * @throws ConfigError
 */
export async function requireNoEviction(redis: Redis): Promise<void> {
  const info = await orLate(
    redis.info('memory').catch(() => ''),
    TIMEOUT_MS,
  );
  const policy = info === LATE ? null : (/^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? null);
  if (policy === null || policy === KEEPS_EVERYTHING) return;
  throw new ConfigError([
    `REDIS_URL: its maxmemory-policy is ${policy}; set it to ${KEEPS_EVERYTHING}, or accept it by REDIS_ALLOW_EVICTION=true`,
  ]);
}
