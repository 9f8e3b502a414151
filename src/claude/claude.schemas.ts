import { z } from 'zod';
import { ProblemSchema } from '../platform/errors/errors.schemas.js';
import { timestamp } from '../platform/http/common.schemas.js';
import { IdempotencyKeySchema } from '../processes/idempotency.schemas.js';
import {
  permissionAnswerFields,
  refuseIdleFields,
  steeringMessageFields,
} from '../processes/process-inbox.schemas.js';
import { SeqSchema } from '../processes/process-queries.schemas.js';
import { ExecuteRequestSchema, ProcessErrorSchema, ProcessSchema } from '../processes/processes.schemas.js';

const processId = z.uuid();

export const ExecuteMessageSchema = ExecuteRequestSchema.extend({
  idempotencyKey: IdempotencyKeySchema.optional(),
}).meta({ ...ExecuteRequestSchema.meta(), id: 'ExecuteMessage' });
export type ExecuteMessage = z.output<typeof ExecuteMessageSchema>;

export const StatusMessageSchema = z
  .strictObject({
    processId,
    after: SeqSchema.optional().meta({ description: 'Follow the process from this seq on' }),
    include: z.enum(['raw']).optional(),
  })
  .meta({ id: 'StatusMessage' });
export type StatusMessage = z.output<typeof StatusMessageSchema>;

export const ProcessMessageSchema = z.strictObject({ processId }).meta({ id: 'ProcessMessage' });
export type ProcessMessage = z.output<typeof ProcessMessageSchema>;

export const PermissionMessageSchema = z
  .strictObject({ processId, permissionId: z.uuid(), ...permissionAnswerFields })
  .superRefine(refuseIdleFields)
  .meta({ id: 'PermissionMessage' });
export type PermissionMessage = z.output<typeof PermissionMessageSchema>;

export const SteeringMessageSchema = z
  .strictObject({ processId, ...steeringMessageFields })
  .meta({ id: 'SteeringMessage' });
export type SteeringMessage = z.output<typeof SteeringMessageSchema>;

const ended = { processId, seq: z.int(), process: ProcessSchema };

export const QueuedNoticeSchema = z
  .object({ processId, position: z.int(), estimatedStartAt: timestamp.nullable() })
  .meta({ id: 'QueuedNotice' });

export const CompleteNoticeSchema = z.object(ended).meta({ id: 'CompleteNotice' });

export const ErrorNoticeSchema = z
  .union([z.object({ ...ended, error: ProcessErrorSchema }), z.object({ error: ProblemSchema })])
  .meta({ id: 'ErrorNotice' });

export const AnswerSchema = z
  .union([
    z.object({
      ok: z.literal(true),
      process: ProcessSchema,
      idempotentReplayed: z.boolean().optional().meta({
        description: 'Of `claude:execute`: whether the process is one that the same request has made before',
      }),
    }),
    z.object({ ok: z.literal(false), error: ProblemSchema }),
  ])
  .meta({ id: 'Answer' });

const PartSchema = z.enum(['ok', 'down']);

export const QueueSchema = z
  .object({
    depth: z.object({
      pending: z.int().meta({ description: 'All that wait, the parked included' }),
      parked: z.int().meta({ description: 'What waits for the time of its next attempt' }),
      running: z.int(),
    }),
    oldestAgeMs: z.int().nullable().meta({ description: 'Of what waits' }),
    wakeUps: z
      .object({ waiting: z.int(), active: z.int(), delayed: z.int() })
      .nullable()
      .meta({ description: "Bull's jobs: each wakes a slot. Null while Redis does not answer" }),
    isPaused: z.boolean().nullable().meta({ description: 'Null while Redis does not answer' }),
    workers: z
      .array(z.object({ id: z.string(), slots: z.int(), busySlots: z.int() }))
      .nullable()
      .meta({ description: 'Null while Redis does not answer' }),
  })
  .meta({ id: 'Queue' });
export type Queue = z.output<typeof QueueSchema>;

export const HealthSchema = z
  .object({
    status: z.enum(['ok', 'degraded', 'down']),
    parts: z
      .object({
        database: PartSchema,
        redis: PartSchema,
        workers: z.int().nullable(),
        slots: z.object({ total: z.int(), busy: z.int() }).nullable(),
        queueDepth: z.int().nullable(),
        queuePaused: z.boolean().nullable(),
        cliVersions: z.array(z.string()).nullable(),
        containment: z
          .array(z.string())
          .nullable()
          .meta({ description: 'What keeps a run from the rest of its machine, on each worker' }),
        apiFallback: z.boolean().nullable().meta({
          description: 'A worker without a CLI answers what needs no tools by the Messages API',
        }),
        upstream: z.enum(['closed', 'open', 'half_open']).nullable().meta({
          description:
            'The circuit breaker in front of the Messages API, of the worker that is worst off: open while that fails, half_open while one run tries it',
        }),
        demo: z.boolean().nullable().meta({ description: 'A worker answers from the scripted Messages API' }),
        problems: z.array(z.string()),
        cliPaths: z.array(z.string()).nullable().meta({ description: 'For administrators only' }),
      })
      .nullable()
      .meta({ description: 'With credentials only. What is not known, since a store is away, is null' }),
  })
  .meta({ id: 'Health' });
export type Health = z.output<typeof HealthSchema>;
