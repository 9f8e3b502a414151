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
