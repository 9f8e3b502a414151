import { z } from 'zod';
import { timestamp } from '../platform/http/common.schemas.js';
import { OutputSchemaSchema } from './output-schema.schemas.js';
import { type Usage, UsageSchema } from '../sessions/usage.schemas.js';

export type { Usage };

const MIB = 1024 * 1024;
const KIB = 1024;
const DAY_MS = 24 * 60 * 60 * 1000;
const encoder = new TextEncoder();

/** Text that reaches the model as it was sent: what could not be kept is refused by name, never changed. */
export const text = (maxBytes: number) =>
  z.string().superRefine((value, context) => {
    const refuse = (code: string, message: string) => {
      context.addIssue({ code: 'custom', message, params: { code }, continue: false });
    };
    if (value.includes('\0')) refuse('contains_nul', 'must not hold the character U+0000');
    else if (!value.isWellFormed()) refuse('lone_surrogate', 'must not hold half of a surrogate pair');
    else if (encoder.encode(value).byteLength > maxBytes)
      refuse('too_big', `must not have more than ${maxBytes} bytes`);
  });

/** What the user says to the model. */
export const promptText = text(MIB).refine((value) => value.trim() !== '', 'must hold more than white space');

const toolNames = z
  .array(z.string().regex(/^[A-Za-z][\w-]{0,127}$/, 'must be the plain name of a tool'))
  .max(64)
  .optional();

const MAX_PAIRS = 16;
export const TOO_MANY_PAIRS = `must not have more than ${MAX_PAIRS} pairs`;
export const hasFewPairs = (pairs: object) => Object.keys(pairs).length <= MAX_PAIRS;

/** The failures after which a caller may let a process run again. */
const RetryableCodeSchema = z
  .enum([
    'worker_lost',
    'timeout',
    'stalled',
    'engine_unavailable',
    'upstream_rate_limited',
    'upstream_overloaded',
    'internal',
  ])
  .meta({ id: 'RetryableCode' });

const RetrySchema = z
  .strictObject({
    maxAttempts: z.int().min(2).max(10).meta({ description: 'The first run counts' }),
    on: z.array(RetryableCodeSchema).min(1).max(RetryableCodeSchema.options.length),
  })
  .meta({
    id: 'Retry',
    description:
      'When the process may run again. An agent has side effects: without this nothing that has started runs twice',
  });

const DEFAULT_PRIORITY = 5;

export const ExecuteRequestSchema = z
  .strictObject({
    prompt: promptText.meta({
      description: 'What Claude is asked; 1 character to 1 MiB. It reaches the model as it was sent',
    }),
    model: z
      .string()
      .regex(/^[A-Za-z0-9][\w.:@/-]{0,127}$/, 'must be the name of a model')
      .optional(),
    systemPrompt: text(64 * KIB)
      .optional()
      .meta({ description: "In place of the CLI's own system prompt" }),
    appendSystemPrompt: text(64 * KIB)
      .optional()
      .meta({ description: "After the CLI's own system prompt" }),
    sessionId: z.uuid().optional().meta({
      description: 'The session that it continues, after whatever else of it waits; a new one unless told',
    }),
    forkSession: z
      .boolean()
      .default(false)
      .meta({ description: 'Whether it runs in a copy of the session, which stays as it is' }),
    tools: toolNames.meta({
      description:
        'The only tools that the model is offered. A tool of an MCP server of the operator is `mcp__<server>__<tool>`, all of its tools are `mcp__<server>`',
    }),
    allowedTools: toolNames.meta({ description: 'Tools that run without being asked for' }),
    disallowedTools: toolNames.meta({ description: 'Tools that never run' }),
    permissionMode: z.enum(['deny', 'ask', 'acceptEdits', 'plan']).default('deny').meta({
      description:
        'What becomes of a tool call that nothing allows: `deny` refuses it, `ask` asks you (`permission_requested`), `acceptEdits` lets file edits through, `plan` changes nothing',
    }),
    maxTurns: z.int().min(1).max(1000).optional(),
    maxBudgetUsd: z.number().min(0.0001).max(10_000).optional().meta({
      description:
        'US dollars: it fails with run_budget_reached after the request to the model that passes it, over all its attempts',
    }),
    outputSchema: OutputSchemaSchema.optional(),
    timeoutMs: z
      .int()
      .min(1000)
      .max(DAY_MS)
      .optional()
      .meta({ description: 'How long it may run; the time that approvals wait does not count' }),
    queueTimeoutMs: z.int().min(1000).max(DAY_MS).optional().meta({
      description: 'How long it may wait for its first start; after that it fails with queue_timeout',
    }),
    priority: z
      .int()
      .min(0)
      .max(9)
      .default(DEFAULT_PRIORITY)
      .meta({ description: "Orders the caller's own waiting processes, the highest first" }),
    retry: RetrySchema.optional(),
    engine: z.enum(['auto', 'cli', 'api']).default('auto').meta({
      description:
        '`cli`: the Claude CLI. `api`: the Messages API without it, and without tools. `auto`: the CLI, and where it cannot be started, the API for what needs no tools',
    }),
    cancelOnDisconnect: z
      .boolean()
      .default(false)
      .meta({ description: 'Whether the process ends when the connection that waits for it does' }),
    metadata: z
      .record(
        z.string().regex(/^[\w.-]{1,64}$/, 'must be a name of 1 to 64 letters, digits, _ . -'),
        text(512),
      )
      .refine(hasFewPairs, TOO_MANY_PAIRS)
      .default({}),
  })
  .meta({ id: 'ExecuteRequest' });

export type ExecuteRequest = z.output<typeof ExecuteRequestSchema>;

export const ProcessStatusSchema = z
  .enum(['pending', 'running', 'completed', 'failed', 'cancelled'])
  .meta({ id: 'ProcessStatus' });

export type ProcessStatus = z.output<typeof ProcessStatusSchema>;

export const isEnded = ({ status }: { status: ProcessStatus }) =>
  status !== 'pending' && status !== 'running';

export const ProcessErrorSchema = z
  .object({
    code: z.string().meta({
      description:
        'timeout, stalled, queue_timeout, worker_lost, engine_unavailable, upstream_…, max_turns_reached, run_budget_reached, output_schema_mismatch, output_too_large, workspace_full, internal; more may come',
    }),
    detail: z.string(),
    retryable: z.boolean().meta({ description: 'Whether the same request may succeed later' }),
    retryAfterMs: z.int().nullable(),
  })
  .meta({ id: 'ProcessError', description: 'Why a process failed' });

export type ProcessError = z.output<typeof ProcessErrorSchema>;

const StopReasonSchema = z
  .enum(['end_turn', 'max_tokens', 'max_turns', 'refusal', 'interrupted', 'run_budget_reached'])
  .meta({ id: 'StopReason' });

const PermissionDenialSchema = z
  .object({ toolUseId: z.string(), name: z.string(), input: z.unknown() })
  .meta({ id: 'PermissionDenial', description: 'A tool call that was refused' });

const FilesChangedSchema = z
  .object({
    count: z.int().meta({ description: 'How many there were; `items` holds 100 of them at most' }),
    items: z
      .array(
        z
          .object({ path: z.string(), change: z.enum(['added', 'modified', 'deleted']) })
          .meta({ id: 'FileChange' }),
      )
      .meta({ description: 'By path' }),
  })
  .meta({ id: 'FilesChanged' });

export type FilesChanged = z.output<typeof FilesChangedSchema>;

const LinksSchema = z
  .object({ self: z.string(), events: z.string(), stream: z.string(), cancel: z.string() })
  .meta({ id: 'ProcessLinks' });

const milliseconds = (description: string) => z.int().nullable().meta({ description });

const summaryFields = {
  id: z.uuid(),
  status: ProcessStatusSchema,
  stopReason: StopReasonSchema.nullable(),
  error: ProcessErrorSchema.nullable(),
  model: z.string().nullable(),
  engine: z.string().nullable(),
  demo: z.boolean().meta({ description: 'It ran against the scripted Messages API' }),
  sessionId: z.uuid(),
  attempt: z.int(),
  priority: z.int(),
  queuePosition: z.int().nullable().meta({ description: '1 is next; null once it no longer waits' }),
  usage: UsageSchema.nullable(),
  costUsd: z.number().nullable(),
  numTurns: z.int().nullable(),
  permissionDenials: z.array(PermissionDenialSchema),
  metadata: z.record(z.string(), z.string()),
  createdAt: timestamp,
  startedAt: timestamp.nullable(),
  finishedAt: timestamp.nullable(),
  cancelRequestedAt: timestamp.nullable(),
  retryAt: timestamp.nullable().meta({ description: 'It waits until then before it runs again' }),
  contentDeletedAt: timestamp.nullable().meta({
    description:
      'Its prompt, result, metadata and log were deleted then; ids, times, status, error, usage and cost are left',
  }),
  queueWaitMs: milliseconds('From createdAt to startedAt'),
  timeToFirstTokenMs: milliseconds('From createdAt to the first text'),
  durationMs: milliseconds('From startedAt to finishedAt'),
  firstSeq: z
    .int()
    .meta({ description: 'The lowest seq that is left of its log; what came before has been pruned' }),
  lastSeq: z.int().meta({ description: 'The highest seq of its log' }),
  cliVersion: z.string().nullable(),
  links: LinksSchema,
};

export const ProcessSchema = z
  .object({
    ...summaryFields,
    prompt: z.string().nullable().meta({ description: 'Null once the content was deleted' }),
    result: z.string().nullable(),
    structuredResult: z.unknown().meta({ description: 'What the outputSchema asked for' }),
    filesChanged: FilesChangedSchema.nullable().meta({
      description:
        'What became of the files of its workspace from just before its last attempt asked Claude to its end, uploads included; ' +
        'null before the end, and where it is not known',
    }),
  })
  .meta({ id: 'Process', description: 'One run of Claude. Every field is always there, null when empty' });

export type Process = z.output<typeof ProcessSchema>;

const ProcessSummarySchema = z
  .object({ ...summaryFields, promptPreview: z.string().meta({ description: 'At most 200 characters' }) })
  .meta({ id: 'ProcessSummary' });

export type ProcessSummary = z.output<typeof ProcessSummarySchema>;

export const ProcessPageSchema = z
  .object({ items: z.array(ProcessSummarySchema), nextCursor: z.string().nullable() })
  .meta({ id: 'ProcessPage' });

export type ProcessPage = z.output<typeof ProcessPageSchema>;
