import { z } from 'zod';

const MAX_BYTES = 64 * 1024;
const MAX_DEPTH = 32;
const encoder = new TextEncoder();

/** What an answer must match. Whether it is a schema at all takes more than a look: see SubmissionChecks. */
export const OutputSchemaSchema = z
  .record(z.string(), z.unknown())
  .superRefine((schema, context) => {
    const refuse = (code: string, message: string, path: string[] = []) => {
      context.addIssue({ code: 'custom', message, path, params: { code }, continue: false });
    };
    const json = JSON.stringify(schema);
    if (encoder.encode(json).byteLength > MAX_BYTES)
      refuse('too_big', `must not have more than ${MAX_BYTES} bytes`);
    else if (depthOf(schema) > MAX_DEPTH) refuse('too_deep', `must not be more than ${MAX_DEPTH} deep`);
    // Written as JSON is how both are seen without a walk: `\u0000`, and the half of a pair.
    else if (/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/i.test(json))
      refuse('odd_text', 'must hold neither the character U+0000 nor half of a surrogate pair');
    else if (schema.type !== 'object') refuse('no_object', 'must be object', ['type']);
  })
  .meta({
    description:
      'JSON Schema (2020-12, or draft-07 by its `$schema`) of an object, at most 64 KiB. The answer is in `structuredResult`; one that does not match it fails with output_schema_mismatch',
  });

const depthOf = (value: unknown): number =>
  typeof value === 'object' && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0;
