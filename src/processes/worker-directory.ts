import { Inject, Injectable } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { REDIS } from '../platform/redis/redis.module.js';

const KEY = 'claude-runner:workers';
export const ANNOUNCE_INTERVAL_MS = 5_000;
/** A worker that has not announced itself for so long is not there. */
const ABSENT_MS = 3 * ANNOUNCE_INTERVAL_MS;

/** See SupplyFigures. */
const SupplySchema = z.object({
  count: z.int(),
  hits: z.int(),
  misses: z.int(),
  evictions: z.int(),
  oldestMs: z.int().nullable(),
});

const WorkerStatusSchema = z.object({
  id: z.string(),
  /** Milliseconds since 1970. */
  at: z.number(),
  slots: z.int(),
  busySlots: z.int(),
  demo: z.boolean(),
  engine: z.object({
    isAvailable: z.boolean(),
    version: z.string().nullable(),
    path: z.string().nullable(),
    containment: z.string(),
    hasFallback: z.boolean(),
    breaker: z.enum(['closed', 'open', 'half_open']),
    tools: z.array(z.string()),
    detail: z.string().nullable(),
    spares: SupplySchema,
    keptSessions: SupplySchema,
  }),
});

export type WorkerStatus = z.output<typeof WorkerStatusSchema>;

/** Which workers there are, as they announce it themselves in Redis. For people to look at: nothing is decided by it. */
@Injectable()
export class WorkerDirectory {
  constructor(@Inject(REDIS) private readonly redis: Redis) {}

  /** Redis is there (again), and may have forgotten everybody. */
  onReady(listener: () => void): void {
    this.redis.on('ready', listener);
  }

  async announce(status: WorkerStatus): Promise<void> {
    await this.redis.hset(KEY, status.id, JSON.stringify(status));
  }

  async leave(id: string): Promise<void> {
    await this.redis.hdel(KEY, id);
  }

  async list(): Promise<WorkerStatus[]> {
    const announced = Object.entries(await this.redis.hgetall(KEY)).map(([id, json]) => ({
      id,
      status: parse(json),
    }));
    const present = announced.flatMap(({ status }) => (status && !isAbsent(status) ? [status] : []));
    const gone = announced.filter(({ status }) => !status || isAbsent(status));
    await Promise.all(gone.map(({ id }) => this.leave(id)));
    return present;
  }
}

const isAbsent = ({ at }: WorkerStatus) => at < Date.now() - ABSENT_MS;

/** Null for what no worker of this version has announced. */
function parse(json: string): WorkerStatus | null {
  try {
    return WorkerStatusSchema.parse(JSON.parse(json));
  } catch {
    return null;
  }
}
