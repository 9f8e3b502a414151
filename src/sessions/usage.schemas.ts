import { z } from 'zod';

export const UsageSchema = z
  .object({
    inputTokens: z.int(),
    outputTokens: z.int(),
    cacheReadInputTokens: z.int(),
    cacheCreationInputTokens: z.int(),
  })
  .meta({ id: 'Usage' });

export type Usage = z.output<typeof UsageSchema>;

/** A run's tokens, or its dollars, are no more than that in any sum: what the CLI has said of itself must not break one. */
const MAX_SUMMAND = '1e12';

/** SQL for what a process has used of something, whole and as far as it counts; null where that is not known. */
export const countedTokens = (name: keyof Usage) => counted(`round((usage->>'${name}')::numeric)`);

export const COUNTED_COST = counted('cost_usd');

// (`least` would take what is not known for the most.)
function counted(sql: string): string {
  return `CASE WHEN ${sql} > ${MAX_SUMMAND} THEN ${MAX_SUMMAND} ELSE ${sql} END`;
}
