import { Worker } from 'node:worker_threads';
import { builtProgram } from './built-program.js';
import { type Ending } from './engine-event.js';
import { mismatch } from './failure.js';
import { type SchemaAnswer, type SchemaQuestion } from './output-schema-program.js';
import { type JsonSchema } from './plain-schema.js';

const PATIENCE_MS = 3000;
const MAX_HEAP_MIB = 128;

/** Why a schema cannot be used: it is none, refers to another, or takes too long. Null where it can. */
export async function schemaProblem(schema: JsonSchema): Promise<string | null> {
  return (await ask({ kind: 'check', schema })).problem;
}

/** What stands for a schema before the CLI and the Messages API: see plainSchema. */
export async function schemaForModel(schema: JsonSchema): Promise<JsonSchema> {
  return (await ask({ kind: 'check', schema })).plain;
}

/** An ending as the schema that was asked for has it: what is not so has failed. */
export async function heldTo(schema: JsonSchema | undefined, ending: Ending): Promise<Ending> {
  if (schema === undefined || ending.kind !== 'completed') return ending;
  const { result: _result, truncated: _truncated, structuredResult, ...figures } = ending;
  const problem =
    structuredResult === null
      ? 'it gave none.'
      : (await ask({ kind: 'match', schema, value: structuredResult })).problem;
  if (problem === null) return ending;
  return { ...figures, kind: 'failed', error: mismatch(problem) };
}

/** Never rejects: what cannot be told in time, or in a bounded memory, is a problem. */
function ask(question: SchemaQuestion): Promise<SchemaAnswer> {
  return new Promise((resolve) => {
    const thread = new Worker(builtProgram('output-schema-program.js'), {
      workerData: question,
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB },
      env: {},
      execArgv: [],
    });
    const settle = (answer: SchemaAnswer) => {
      clearTimeout(timer);
      void thread.terminate();
      resolve(answer);
    };
    const fail = (problem: string) => settle({ problem, plain: { type: 'object' } });
    const timer = setTimeout(() => fail('it takes too long to check'), PATIENCE_MS);
    thread.once('message', settle);
    thread.once('error', (error) => fail(`it cannot be checked (${error.message.slice(0, 100)})`));
    thread.once('exit', () => fail('it cannot be checked'));
  });
}
