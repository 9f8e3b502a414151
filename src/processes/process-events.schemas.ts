import { z } from 'zod';
import { timestamp } from '../platform/http/common.schemas.js';
import { UsageSchema } from '../sessions/usage.schemas.js';
import { ProcessSchema } from './processes.schemas.js';

const envelope = { processId: z.uuid(), seq: z.int().min(1), createdAt: timestamp };

const event = <Type extends string, Fields extends z.ZodRawShape>(type: Type, id: string, fields: Fields) =>
  z.object({ ...envelope, type: z.literal(type), ...fields }).meta({ id });

const delta = { messageId: z.string(), text: z.string() };

export const PermissionRequestedEventSchema = event('permission_requested', 'PermissionRequestedEvent', {
  permissionId: z.uuid(),
  toolUseId: z.string(),
  tool: z.string(),
  input: z.unknown(),
  expiresAt: timestamp.meta({ description: 'It is refused when nobody has answered by then' }),
});

/** One entry of a process's log: the same over SSE, REST and sockets. Clients ignore a `type` that they do not know. */
export const ProcessEventSchema = z
  .discriminatedUnion('type', [
    event('created', 'CreatedEvent', { process: ProcessSchema }),
    event('queued', 'QueuedEvent', { position: z.int() }),
    event('started', 'StartedEvent', { engine: z.string(), model: z.string().nullable(), attempt: z.int() }),
    event('text', 'TextEvent', delta),
    event('thinking', 'ThinkingEvent', delta),
    event('message', 'MessageEvent', { messageId: z.string(), turn: z.int(), text: z.string() }),
    event('user_message', 'UserMessageEvent', {
      messageId: z.uuid(),
      text: z.string().meta({ description: 'A further message, which the model has from here on' }),
    }),
    event('tool_use', 'ToolUseEvent', { toolUseId: z.string(), name: z.string(), input: z.unknown() }),
    event('tool_result', 'ToolResultEvent', {
      toolUseId: z.string(),
      content: z.unknown(),
      isError: z.boolean(),
      truncated: z.boolean(),
    }),
    PermissionRequestedEventSchema,
    event('permission_resolved', 'PermissionResolvedEvent', {
      permissionId: z.uuid(),
      decision: z.enum(['allow', 'deny']),
      by: z.uuid().nullable().meta({ description: 'The user who answered; null where nobody has' }),
      reason: z.enum(['answered', 'expired', 'withdrawn']).meta({
        description: '`withdrawn`: the run, or its turn, was over before there was an answer',
      }),
      message: z.string().nullable(),
      updatedInput: z.record(z.string(), z.unknown()).nullable(),
    }),
    event('retrying', 'RetryingEvent', { attempt: z.int(), code: z.string(), retryAt: timestamp.nullable() }),
    event('usage', 'UsageEvent', UsageSchema.shape),
    event('raw', 'RawEvent', { line: z.unknown() }),
    event('completed', 'CompletedEvent', { process: ProcessSchema }),
    event('failed', 'FailedEvent', { process: ProcessSchema }),
    event('cancelled', 'CancelledEvent', { process: ProcessSchema }),
  ])
  .meta({ id: 'ProcessEvent' });

export type ProcessEvent = z.output<typeof ProcessEventSchema>;
export type TerminalEvent = Extract<ProcessEvent, { type: 'completed' | 'failed' | 'cancelled' }>;

export const isTerminal = (event: ProcessEvent): event is TerminalEvent =>
  event.type === 'completed' || event.type === 'failed' || event.type === 'cancelled';

const FIXED_CHARACTERS = 200;

/** Roughly, in characters of JSON: what is large in an event is its text. */
export function sizeOf(event: ProcessEvent): number {
  if ('text' in event) return FIXED_CHARACTERS + event.text.length;
  if ('process' in event) {
    const { prompt, result } = event.process;
    return 5 * FIXED_CHARACTERS + (prompt?.length ?? 0) + (result?.length ?? 0);
  }
  const mayBeLarge =
    event.type === 'raw' || event.type.startsWith('tool_') || event.type.startsWith('permission_');
  return mayBeLarge ? JSON.stringify(event).length : FIXED_CHARACTERS;
}

/** An event before the log has given it a place. */
type WithoutPlace<Event> = Event extends ProcessEvent
  ? Omit<Event, 'processId' | 'seq' | 'createdAt'>
  : never;
export type NewProcessEvent = WithoutPlace<ProcessEvent>;

export const ProcessEventPageSchema = z
  .object({
    items: z.array(ProcessEventSchema),
    nextCursor: z
      .int()
      .nullable()
      .meta({ description: 'The next `after`; null at the end of a log that has ended' }),
    lastSeq: z.int(),
  })
  .meta({ id: 'ProcessEventPage' });

export type ProcessEventPage = z.output<typeof ProcessEventPageSchema>;
