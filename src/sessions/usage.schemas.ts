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
export const MAX_SUMMAND = 1e12;
