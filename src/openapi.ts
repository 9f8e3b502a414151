import type { INestApplication } from '@nestjs/common';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { z } from 'zod';
import { ProblemSchema } from './platform/errors/errors.schemas.js';

const DESCRIPTION =
  'The real Claude CLI as a service: submit a prompt, follow its events, cancel it, find it again. ' +
  'An HTTP error means that no process was made; what became of one is in its `status`.';

type JsonSchema = Record<string, unknown>;

/** OpenAPI 3.1, from the zod schemas that the routes themselves use. */
export function buildOpenApi(app: INestApplication): OpenAPIObject {
  const config = new DocumentBuilder()
    .setTitle('Claude Runner')
    .setDescription(DESCRIPTION)
    .setVersion('1')
    .setOpenAPIVersion('3.1.0')
    .addServer('/')
    .addBearerAuth({
      type: 'http',
      scheme: 'bearer',
      description: 'An access token of /auth/login, or an API key',
    })
    .addTag('Claude', 'Submitting prompts, and what becomes of them')
    .addTag('Auth', 'Access tokens and API keys')
    .build();
  const document = SwaggerModule.createDocument(app, config, {
    standardSchemaConverter: (schema, { schemaType }) =>
      schema instanceof z.core.$ZodType ? convert(schema, schemaType) : undefined,
  });
  const schemas = { ...document.components?.schemas, ...convert(ProblemSchema, 'output').components };
  return {
    ...document,
    components: { ...document.components, schemas },
  };
}

/** The document at /openapi.json and Swagger UI at /docs, built when they are first asked for. */
export function serveOpenApi(app: INestApplication): void {
  SwaggerModule.setup('docs', app, () => buildOpenApi(app), { jsonDocumentUrl: 'openapi.json' });
}

/** Schemas with an id become components, so that generated clients get types with names. */
function convert(
  schema: z.core.$ZodType,
  io: 'input' | 'output',
): { schema: JsonSchema; components: Record<string, JsonSchema> } {
  const wrapped = z.toJSONSchema(z.object({ root: withoutPreprocess(schema) }), {
    unrepresentable: 'any',
    io,
    override: ({ zodSchema, jsonSchema }) => adapt(zodSchema, jsonSchema, io),
  }) as unknown as { properties: { root: JsonSchema }; $defs?: Record<string, JsonSchema> };
  return { schema: wrapped.properties.root, components: wrapped.$defs ?? {} };
}

function adapt(schema: z.core.$ZodTypes, json: JsonSchema, io: 'input' | 'output'): void {
  delete json.id; // the component's name says it
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
