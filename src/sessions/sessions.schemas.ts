import { z } from 'zod';
import { timestamp } from '../platform/http/common.schemas.js';
import { UsageSchema } from './usage.schemas.js';

const MAX_ORDINAL = 2 ** 31 - 1;

const title = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'must not hold control characters')
  .nullable();

export const CreateSessionRequestSchema = z
  .strictObject({ title: title.default(null) })
  .meta({ id: 'CreateSessionRequest' });
export type CreateSessionRequest = z.output<typeof CreateSessionRequestSchema>;

export const UpdateSessionRequestSchema = z.strictObject({ title }).meta({ id: 'UpdateSessionRequest' });
export type UpdateSessionRequest = z.output<typeof UpdateSessionRequestSchema>;

export const ForkSessionRequestSchema = z
  .strictObject({
    title: title.default(null),
    head: z
      .int()
      .min(0)
      .max(MAX_ORDINAL)
      .optional()
      .meta({ description: 'How many of its turns the fork begins with; all unless told' }),
  })
  .meta({ id: 'ForkSessionRequest' });
export type ForkSessionRequest = z.output<typeof ForkSessionRequestSchema>;

export const SessionSchema = z
  .object({
    id: z.uuid(),
    title: z.string().nullable(),
    head: z.int().meta({ description: 'How many of its turns have ended' }),
    forkedFromId: z.uuid().nullable(),
    isBusy: z.boolean().meta({ description: 'Whether a process of it runs or waits' }),
    processCount: z.int(),
    usage: UsageSchema.nullable().meta({ description: 'Of all its processes together' }),
    costUsd: z.number().nullable().meta({ description: 'Of all its processes together' }),
    transcriptGaps: z.int().meta({
      description: 'How often something that was said could not be kept: as much may be forgotten',
    }),
    createdAt: timestamp,
    links: z
      .object({
        self: z.string(),
        messages: z.string(),
        processes: z.string(),
        fork: z.string(),
        files: z.string(),
        archive: z.string(),
      })
      .meta({ id: 'SessionLinks' }),
  })
  .meta({ id: 'Session', description: 'A conversation, which processes continue' });
export type Session = z.output<typeof SessionSchema>;

export const SessionPageSchema = z
  .object({ items: z.array(SessionSchema), nextCursor: z.string().nullable() })
  .meta({ id: 'SessionPage' });
export type SessionPage = z.output<typeof SessionPageSchema>;

export const MessagesQuerySchema = z.strictObject({
  after: z.coerce.number('must be a place').int('must be whole').min(0).max(MAX_ORDINAL).default(0),
  limit: z.coerce.number().int().min(1).max(200).default(50),
});
export type MessagesQuery = z.output<typeof MessagesQuerySchema>;

const block = <Type extends string, Shape extends z.ZodRawShape>(type: Type, id: string, shape: Shape) =>
  z.object({ type: z.literal(type), ...shape }).meta({ id });

const MessageBlockSchema = z
  .discriminatedUnion('type', [
    block('text', 'TextBlock', { text: z.string() }),
    block('thinking', 'ThinkingBlock', { text: z.string() }),
    block('tool_use', 'ToolUseBlock', { toolUseId: z.string(), name: z.string(), input: z.unknown() }),
    block('tool_result', 'ToolResultBlock', {
      toolUseId: z.string(),
      content: z.string(),
      isError: z.boolean(),
      truncated: z.boolean(),
    }),
  ])
  .meta({ id: 'MessageBlock' });

const SessionMessageSchema = z
  .object({
    id: z.string(),
    role: z.enum(['user', 'assistant']).meta({ description: 'Tools answer as the user' }),
    processId: z.uuid().nullable().meta({ description: 'The process in which it was said' }),
    model: z.string().nullable(),
    createdAt: timestamp,
    content: z.array(MessageBlockSchema),
  })
  .meta({
    id: 'SessionMessage',
    description: 'Something that was said. A message of the model comes in as many as it has blocks',
  });

export const SessionMessagePageSchema = z
  .object({
    items: z.array(SessionMessageSchema),
    nextCursor: z.int().nullable().meta({ description: 'The `after` of what follows' }),
  })
  .meta({ id: 'SessionMessagePage' });
export type SessionMessagePage = z.output<typeof SessionMessagePageSchema>;
