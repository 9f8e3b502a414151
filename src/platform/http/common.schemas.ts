import { z } from 'zod';

/** ISO 8601, UTC, milliseconds. */
export const timestamp = z.iso.datetime();

const [FIRST_MOMENT, LAST_MOMENT] = [
  new Date('0001-01-01T00:00:00.000Z'),
  new Date('9999-12-31T23:59:59.999Z'),
];

/** A point in time that a caller names: one that the database knows too. */
export const moment = z.iso.datetime({ offset: true }).refine((text) => {
  const time = new Date(text);
  return time >= FIRST_MOMENT && time <= LAST_MOMENT;
}, 'must be in the years 1 to 9999');

export const PageQuerySchema = z.strictObject({
  limit: z.coerce.number().int().min(1).max(100).default(20),
  cursor: z.string().max(200).optional(),
});

export type PageQuery = z.output<typeof PageQuerySchema>;

export const IdParametersSchema = z.strictObject({ id: z.uuid() });

export type IdParameters = z.output<typeof IdParametersSchema>;
