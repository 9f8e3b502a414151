import { type Ending } from './index.js';
import { NO_USAGE } from './open-message.js';
import { heldTo, schemaForModel, schemaProblem } from './output-schema.js';
import { type JsonSchema } from './plain-schema.js';
import { EngineBench } from './test-support.js';

let bench: EngineBench;
beforeAll(async () => {
  bench = await EngineBench.open();
});
beforeEach(() => bench.api.reset());
afterAll(() => bench.close());

const object = (properties: object, more: object = {}): JsonSchema => ({
  type: 'object',
  properties,
  ...more,
});
const COUNT = object({ count: { type: 'integer' } }, { required: ['count'], additionalProperties: false });
const output = (value: unknown) => `[[tool StructuredOutput ${JSON.stringify(value)}]]`;

const shownSchema = () => {
  const [turn] = bench.api.requests.filter(({ purpose }) => purpose === 'turn');
  const { tools } = turn?.body as { tools: { name: string; input_schema: JsonSchema }[] };
  return tools.find(({ name }) => name === 'StructuredOutput')?.input_schema;
};

describe('a run that must answer by a schema', () => {
  it('gives what the schema asks for, beside its text', async () => {
    const run = await bench.run({ prompt: output({ count: 3 }), outputSchema: COUNT });
    expect(await run.ending()).toMatchObject({
      kind: 'completed',
      result: '{"count":3}',
      structuredResult: { count: 3 },
    });
    expect(shownSchema()).toEqual(COUNT);
  });

  it('lets the model mend what does not match', async () => {
    const prompt = [output({ count: 'three' }), output({ count: 3 })].join('\n');
    const run = await bench.run({ prompt, outputSchema: COUNT });
    expect(await run.ending()).toMatchObject({ kind: 'completed', structuredResult: { count: 3 } });
  });

  it.each([
    [
      'tries again and again in vain',
      Array(6)
        .fill(output({ count: 'three' }))
        .join('\n'),
      /\/count.*integer/,
    ],
    ['only talks', '[[text Three, I think]]', /gave none/],
  ])('fails, with what it used, where the model %s', async (_, prompt, detail) => {
    const run = await bench.run({ prompt, outputSchema: COUNT });
    const ending = await run.ending();
    expect(ending).toMatchObject({ kind: 'failed', error: { code: 'output_schema_mismatch' } });
    expect(ending.kind === 'failed' && ending.error.detail).toMatch(detail);
    expect(ending.usage?.outputTokens).toBeGreaterThan(0);
  });

  it('is held to what only 2020-12 can say, which the CLI does not know', async () => {
    const schema = object(
      { pair: { type: 'array', prefixItems: [{ type: 'integer' }, { type: 'string' }], items: false } },
      { $schema: 'https://json-schema.org/draft/2020-12/schema', unevaluatedProperties: false },
    );
    const good = await bench.run({ prompt: output({ pair: [1, 'a'] }), outputSchema: schema });
    expect(await good.ending()).toMatchObject({ structuredResult: { pair: [1, 'a'] } });
    expect(JSON.stringify(shownSchema())).toContain(JSON.stringify(JSON.stringify(schema)).slice(1, -1));
    const bad = await bench.run({ prompt: output({ pair: ['a', 1] }), outputSchema: schema });
    expect(await bad.ending()).toMatchObject({ kind: 'failed', error: { code: 'output_schema_mismatch' } });
  });

  it('starts the CLI with every keyword that the dialects have in common', async () => {
    const schema = object(
      {
        text: { type: 'string', minLength: 1, maxLength: 9, pattern: '^a', format: 'email', 'x-ours': true },
        number: { type: ['number', 'null'], multipleOf: 2, exclusiveMinimum: 1, maximum: 9, default: 2 },
        list: {
          type: 'array',
          items: { $ref: '#/$defs/one' },
          minItems: 1,
          uniqueItems: true,
          contains: true,
        },
        choice: { oneOf: [{ const: 1 }, { enum: [2, 3] }], not: { const: 4 }, examples: [1] },
      },
      {
        $id: 'https://example.com/schema',
        $defs: { one: { anyOf: [{ type: 'integer' }], if: true, then: true, else: false, title: 'One' } },
        propertyNames: { pattern: '^[a-z]' },
        patternProperties: { '^z': { allOf: [{ type: 'null' }] } },
        minProperties: 1,
      },
    );
    const answer = { text: 'abc', number: 4, list: [1], choice: 2 };
    const run = await bench.run({ prompt: output(answer), outputSchema: schema });
    expect(await run.ending()).toMatchObject({ kind: 'completed', structuredResult: answer });
  });
});

describe('a schema that is none', () => {
  it.each([
    ['has a type that there is not', object({ a: { type: 'whole' } }), /type/],
    ['refers to another', object({ a: { $ref: 'https://example.com/other.json' } }), /resolve reference/],
    ['refers to nothing', object({ a: { $ref: '#/$defs/nothing' } }), /resolve reference/],
    ['is of another dialect', object({}, { $schema: 'http://json-schema.org/draft-04/schema#' }), /2020-12/],
    ['has a pattern that is none', object({ a: { pattern: '(' } }), /regular expression/i],
  ])('%s', async (_, schema, problem) => {
    expect(await schemaProblem(schema)).toMatch(problem);
  });

  it('does not hold up anything else, whatever its patterns do to a value', async () => {
    const evil = object({ a: { type: 'string', pattern: '^(a+)+$' } });
    expect(await schemaProblem(evil)).toBeNull();
    const ending: Ending = {
      kind: 'completed',
      result: '',
      truncated: false,
      structuredResult: { a: `${'a'.repeat(60)}!` },
      stopReason: 'end_turn',
      numTurns: 1,
      usage: NO_USAGE,
      costUsd: 0,
      permissionDenials: [],
      model: null,
    };
    let ticks = 0;
    const clock = setInterval(() => (ticks += 1), 20);
    expect(await heldTo(evil, ending)).toMatchObject({
      error: { code: 'output_schema_mismatch', detail: expect.stringMatching(/too long/) as string },
    });
    clearInterval(clock);
    expect(ticks).toBeGreaterThan(5);
  });

  it('is told in words where even its common part is not for the CLI', async () => {
    const schema = object({ a: { $ref: '#here' } }, { $defs: { x: { $anchor: 'here', type: 'integer' } } });
    expect(await schemaProblem(schema)).toBeNull();
    expect(await schemaForModel(schema)).toEqual({
      type: 'object',
      description: `It must match this JSON Schema: ${JSON.stringify(schema)}`,
    });
  });
});

describe('a budget', () => {
  it('ends a run with the request that passes it, and before the tool that was asked for', async () => {
    const prompt = '[[usage in=1000000 out=10]]\n[[tool Glob {"pattern":"*"}]]\n[[text Done]]';
    const run = await bench.run({ prompt, maxBudgetUsd: 0.5 });
    const ending = await run.ending();
    expect(ending).toMatchObject({
      kind: 'failed',
      stopReason: 'run_budget_reached',
      error: { code: 'run_budget_reached', retryable: false },
      usage: { inputTokens: 1_000_000 },
    });
    expect(ending.costUsd).toBeGreaterThan(0.5);
    expect(run.all('tool_result')).toEqual([]);
  });

  it('lets a run be that stays within it', async () => {
    const run = await bench.run({ prompt: '[[usage in=10 out=10]]\n[[text Done]]', maxBudgetUsd: 0.5 });
    expect(await run.ending()).toMatchObject({ kind: 'completed', result: 'Done' });
  });
});

it('offers no more tools than the operator does', async () => {
  const narrow = await EngineBench.open({ tools: ['Read', 'Glob'] });
  const run = await narrow.run({ prompt: 'hello' });
  expect(await run.ending()).toMatchObject({ kind: 'completed' });
  const { tools } = narrow.api.requests.find(({ purpose }) => purpose === 'turn')?.body as {
    tools: { name: string }[];
  };
  expect(tools.map(({ name }) => name)).toEqual(expect.arrayContaining(['Glob', 'Read']));
  expect(tools.map(({ name }) => name)).not.toContain('Write');
  expect((await narrow.engine.probe()).tools).toEqual(['Read', 'Glob']);
  const refused = await narrow.run({ prompt: 'hello', tools: ['Write'] });
  expect(await refused.ending()).toMatchObject({ error: { code: 'engine_unavailable', retryable: false } });
  await narrow.close();
});
