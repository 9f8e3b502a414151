import { z } from 'zod';

export type JsonSchema = Record<string, unknown>;

/** JSON Schema 2020-12 of a zod schema. Those with an id become components, so that generated clients get types with names. */
export function toComponents(
  schema: z.core.$ZodType,
  io: 'input' | 'output',
): { schema: JsonSchema; components: Record<string, JsonSchema> } {
  const wrapped = z.toJSONSchema(z.object({ root: withoutPreprocess(schema) }), {
    unrepresentable: 'any',
    io,
    override: ({ zodSchema, jsonSchema }) => adapt(zodSchema, jsonSchema, io),
  }) as unknown as { properties: { root: JsonSchema }; $defs?: Record<string, JsonSchema> };
  const { properties, $defs = {} } = JSON.parse(
    JSON.stringify(wrapped).replaceAll('"#/$defs/', '"#/components/schemas/'),
  ) as typeof wrapped;
  return { schema: properties.root, components: $defs };
}

function adapt(schema: z.core.$ZodTypes, json: JsonSchema, io: 'input' | 'output'): void {
  delete json.id; // the component's name says it
  if (json.format !== undefined) delete json.pattern; // which spells the format out
  const { def } = schema._zod;
  if (def.type === 'union' && 'discriminator' in def) {
    json.oneOf ??= json.anyOf;
    delete json.anyOf;
    json.discriminator = {
      propertyName: def.discriminator,
      mapping: mappingOf(String(def.discriminator), def.options),
    };
  }
  // Responses stay open: a new field must not break a client that checks them.
  if (def.type === 'object' && io === 'output') delete json.additionalProperties;
}

/** Without a mapping, generators take the names of the schemas for the values. */
function mappingOf(key: string, options: readonly z.core.$ZodType[]): Record<string, string> {
  return Object.fromEntries(
    options.flatMap((option) => {
      const { id } = z.globalRegistry.get(option) ?? {};
      const values = [...(option._zod.propValues?.[key] ?? [])];
      return values.map((value) => [String(value), `#/components/schemas/${String(id)}`]);
    }),
  );
}

/** What a preprocessed schema takes is whatever it is given; what it means is its other side. */
function withoutPreprocess(schema: z.core.$ZodType): z.core.$ZodType {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  return def.type === 'pipe' && (def.in as z.core.$ZodTypes)._zod.def.type === 'transform' ? def.out : schema;
}
