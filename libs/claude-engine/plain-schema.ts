/** A JSON Schema that is an object; `true` and `false` are schemas too, but none that a caller may give. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** Say the same in both dialects, and hold no schema. */
const PLAIN: ReadonlySet<string> = new Set([
  ...['type', 'enum', 'const', '$ref', 'required', 'pattern', 'minLength', 'maxLength', 'multipleOf'],
  ...['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'minItems', 'maxItems', 'uniqueItems'],
  ...['minProperties', 'maxProperties', 'title', 'description', 'default', 'examples', '$comment'],
]);
/** Say nothing about the value. */
const SILENT: ReadonlySet<string> = new Set(['$schema', '$id']);
const HOLD_ONE: ReadonlySet<string> = new Set([
  ...['additionalProperties', 'items', 'contains', 'propertyNames', 'not', 'if', 'then', 'else'],
]);
const HOLD_NAMED: ReadonlySet<string> = new Set([
  ...['properties', 'patternProperties', 'definitions', '$defs'],
]);
const HOLD_LIST: ReadonlySet<string> = new Set(['allOf', 'anyOf', 'oneOf']);

/**
 * The part of a schema that draft-07, which the CLI reads, and 2020-12, which the Messages API reads, have in common: the CLI
 * does not start with a keyword that it does not know. Where that is not all of it, the model is told the whole in words.
 */
export function plainSchema(schema: JsonSchema): JsonSchema {
  const lost = new Set<string>();
  const plain = common(schema, lost) as JsonSchema;
  return lost.size === 0 ? plain : inWords(schema, plain);
}

/** A schema that takes any object, and tells the model in words what is wanted. */
export function inWords(schema: JsonSchema, plain: JsonSchema = { type: 'object' }): JsonSchema {
  const whole = `It must match this JSON Schema: ${JSON.stringify(schema)}`;
  const { description } = plain;
  return { ...plain, description: typeof description === 'string' ? `${description}\n\n${whole}` : whole };
}

/** Means something else beside a keyword that draft-07 does not know. */
const MISREAD: ReadonlyMap<string, string> = new Map([
  ['items', 'prefixItems'],
  ['contains', 'minContains'],
]);
/** Takes less where what it holds takes more. */
const TURNS_ROUND: ReadonlySet<string> = new Set(['not', 'if', 'oneOf']);

/** @param lost the keywords that had to be left out: without them a schema takes more, never less */
function common(schema: unknown, lost: Set<string>): unknown {
  if (!isRecord(schema)) return schema;
  const kept = Object.entries(schema).flatMap(([keyword, value]) => {
    if (SILENT.has(keyword)) return [];
    const lostInside = new Set<string>();
    const plain = Object.hasOwn(schema, MISREAD.get(keyword) ?? '')
      ? undefined
      : valueOf(keyword, value, lostInside);
    const isKept = plain !== undefined && !(TURNS_ROUND.has(keyword) && lostInside.size > 0);
    for (const name of isKept ? lostInside : [keyword]) lost.add(name);
    return isKept ? [[keyword, plain]] : [];
  });
  return Object.fromEntries(kept) as unknown;
}

/** What a keyword has in both dialects; undefined where it is not of both. */
function valueOf(keyword: string, value: unknown, lost: Set<string>): unknown {
  const inner = (schema: unknown) => common(schema, lost);
  if (PLAIN.has(keyword)) return value;
  if (HOLD_ONE.has(keyword) && !Array.isArray(value)) return inner(value);
  if (HOLD_LIST.has(keyword) && Array.isArray(value)) return value.map(inner);
  if (!HOLD_NAMED.has(keyword) || !isRecord(value)) return undefined;
  return Object.fromEntries(Object.entries(value).map(([name, schema]) => [name, inner(schema)]));
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
