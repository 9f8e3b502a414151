import { z } from 'zod';

const ErrorIssueSchema = z
  .object({
    pointer: z
      .string()
      .meta({ description: 'JSON pointer to the value, from the root of the body or of the parameters' }),
    code: z.string(),
    detail: z.string(),
  })
  .meta({ id: 'ErrorIssue' });

export type ErrorIssue = z.output<typeof ErrorIssueSchema>;

export const ProblemSchema = z
  .object({
    type: z.string().meta({ description: 'URI reference of the kind of error' }),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z
      .string()
      .nullable()
      .meta({ description: 'The path, or the socket event, that was asked for' }),
    code: z.string().meta({ description: 'The kind of error, stable; new kinds may be added' }),
    retryable: z.boolean(),
    retryAfterMs: z.int().nullable(),
    requestId: z.string().nullable(),
    errors: z.array(ErrorIssueSchema),
  })
  .meta({ id: 'Problem', description: 'An error, as RFC 9457 describes it' });

export type Problem = z.output<typeof ProblemSchema>;
