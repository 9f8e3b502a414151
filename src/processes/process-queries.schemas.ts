import { z } from 'zod';
import { moment, PageQuerySchema } from '../platform/http/common.schemas.js';
import { hasFewPairs, ProcessStatusSchema, text, TOO_MANY_PAIRS } from './processes.schemas.js';

const MAX_SEQ = 2 ** 31 - 1;

/** A place in a log: everything up to this seq has been seen. */
export const SeqSchema = z.int('must be a seq').min(0).max(MAX_SEQ);

/** The same, as text: in a query or a header. Coerced, no text at all would be 0. */
export const SeqTextSchema = z.preprocess(
  (given) => (typeof given === 'string' && /^\d+$/.test(given) ? Number(given) : given),
  SeqSchema,
);

const include = z.enum(['raw']).optional();

export const EventsQuerySchema = z.strictObject({
  after: SeqTextSchema.default(0).meta({ description: '0, the beginning, unless told' }),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  include,
});
export type EventsQuery = z.output<typeof EventsQuerySchema>;

export const StreamQuerySchema = z.strictObject({ after: SeqTextSchema.optional(), include });
export type StreamQuery = z.output<typeof StreamQuerySchema>;

const statuses = z
  .union([ProcessStatusSchema, z.array(ProcessStatusSchema)])
  .transform((given) => [given].flat());

const METADATA_FILTER = /^metadata\[((?!__proto__\])[\w.-]{1,64})\]$/;

/** `metadata[key]=value` arrives under that very name, and becomes an entry of `metadata`. */
export const ListProcessesQuerySchema = z.preprocess(
  gatherMetadata,
  PageQuerySchema.extend({
    status: statuses.optional(),
    sessionId: z.uuid().optional(),
    createdAfter: moment.optional(),
    createdBefore: moment.optional(),
    metadata: z.record(z.string(), text(512)).refine(hasFewPairs, TOO_MANY_PAIRS).optional(),
    userId: z.uuid().optional(),
  }),
);
export type ListProcessesQuery = z.output<typeof ListProcessesQuerySchema>;

function gatherMetadata(query: unknown): unknown {
  if (typeof query !== 'object' || query === null) return query;
  const rest: Record<string, unknown> = {};
  const metadata: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(query)) {
    const key = METADATA_FILTER.exec(name)?.[1];
    if (key === undefined) rest[name] = value;
    else metadata[key] = value;
  }
  return Object.keys(metadata).length === 0 ? rest : { ...rest, metadata };
}
