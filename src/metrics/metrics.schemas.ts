import { z } from 'zod';
import { timestamp } from '../platform/http/common.schemas.js';
import { UsageSchema } from '../sessions/usage.schemas.js';

export const MetricsQuerySchema = z.strictObject({
  window: z.enum(['5m', '1h', '24h']).default('1h'),
  scope: z.enum(['mine', 'all']).default('mine'),
});
export type MetricsQuery = z.output<typeof MetricsQuerySchema>;

const PercentilesSchema = z
  .object({ p50: z.int().nullable(), p95: z.int().nullable(), p99: z.int().nullable() })
  .meta({ id: 'Percentiles', description: 'Milliseconds; null where nothing was measured' });

const SupplySchema = z
  .object({
    count: z.int().meta({ description: 'How many are ready' }),
    hits: z.int().meta({ description: 'Runs that found one, since the workers were started' }),
    misses: z.int().meta({ description: 'Runs that one would have served, had there been one' }),
    evictions: z.int().meta({ description: 'How many gave way to a run' }),
    oldestMs: z.int().nullable().meta({ description: 'How long the oldest has waited' }),
  })
  .meta({ id: 'CliSupply', description: 'CLIs that wait for what they are asked' });

export const MetricsSchema = z
  .object({
    scope: z.enum(['mine', 'all']),
    window: z.enum(['5m', '1h', '24h']),
    since: timestamp,
    counts: z.object({
      pending: z.int(),
      running: z.int(),
      completed: z.int(),
      failed: z.int(),
      cancelled: z.int(),
    }),
    successRate: z.number().nullable().meta({ description: 'Completed of completed and failed, 0 to 1' }),
    queue: z.object({ depth: z.int(), oldestAgeMs: z.int().nullable() }),
    queueWaitMs: PercentilesSchema,
    timeToFirstTokenMs: PercentilesSchema,
    durationMs: PercentilesSchema,
    usage: UsageSchema,
    costUsd: z.number(),
    workers: z.int().nullable().meta({ description: 'How many there are; null unless scope is all' }),
    slots: z.object({ total: z.int(), busy: z.int() }).nullable(),
    spares: SupplySchema.nullable().meta({ description: 'CLIs that were started ahead' }),
    keptSessions: SupplySchema.nullable().meta({
      description: 'CLIs that stay with their session for its next process',
    }),
  })
  .meta({
    id: 'Metrics',
    description: 'Figures of the processes created in the window. Demo runs do not count',
  });
export type Metrics = z.output<typeof MetricsSchema>;
