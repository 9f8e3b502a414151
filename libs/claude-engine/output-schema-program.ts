/**
 * The thread of output-schema.ts. A schema is compiled to code, and its patterns may take for ever: so neither happens where
 * anything else runs.
 */
import { Ajv, type ErrorObject, type Options } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { parentPort, workerData } from 'node:worker_threads';
import { inWords, type JsonSchema, plainSchema } from './plain-schema.js';

export type SchemaQuestion =
  { kind: 'check'; schema: JsonSchema } | { kind: 'match'; schema: JsonSchema; value: unknown };

export interface SchemaAnswer {
  /** Why the schema is none, or the value does not match it. */
  problem: string | null;
  /** Of a check: what the CLI and the Messages API are given in its place. */
  plain: JsonSchema;
}

/** `format` is a note to the model; what a dialect does not know is ignored, as JSON Schema has it. */
const OPTIONS: Options = { strict: false, validateFormats: false, addUsedSchema: false, logger: false };
const DRAFT_07 = /^https?:\/\/json-schema\.org\/draft-07\/schema#?$/;
const DRAFT_2020 = /^https:\/\/json-schema\.org\/draft\/2020-12\/schema#?$/;

function answer(question: SchemaQuestion): SchemaAnswer {
  const { schema } = question;
  const plain = { type: 'object' };
  try {
    const validate = dialectOf(schema).compile(schema);
    if (question.kind === 'check') return { problem: null, plain: acceptable(schema) };
    return { problem: validate(question.value) ? null : describe(validate.errors?.[0]), plain };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error), plain };
  }
}

function dialectOf({ $schema = 'https://json-schema.org/draft/2020-12/schema' }: JsonSchema): Ajv {
  if (typeof $schema === 'string' && DRAFT_07.test($schema)) return new Ajv(OPTIONS);
  if (typeof $schema === 'string' && DRAFT_2020.test($schema)) return new Ajv2020(OPTIONS);
  throw new Error('$schema must be that of 2020-12 or draft-07');
}

/** What a strict reader of draft-07 takes, as the CLI is one. */
function acceptable(schema: JsonSchema): JsonSchema {
  const plain = plainSchema(schema);
  try {
    new Ajv({ ...OPTIONS, strict: true, strictTypes: false, strictTuples: false }).compile(plain);
    return plain;
  } catch {
    return inWords(schema);
  }
}

function describe(error: ErrorObject | undefined): string {
  const { instancePath = '', message = 'does not match' } = error ?? {};
  return `${instancePath === '' ? 'the output' : instancePath} ${message}`;
}

parentPort?.postMessage(answer(workerData as SchemaQuestion));
