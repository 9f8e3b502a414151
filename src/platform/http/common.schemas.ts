import { z } from 'zod';

/** ISO 8601, UTC, milliseconds. */
export const timestamp = z.iso.datetime();

export const PageQuerySchema = z.strictObject({
  limit: z.coerce.number().int().min(1).max(100).default(20),
  cursor: z.string().max(200).optional(),
});

export type PageQuery = z.output<typeof PageQuerySchema>;

export const IdParametersSchema = z.strictObject({ id: z.uuid() });

export type IdParameters = z.output<typeof IdParametersSchema>;
