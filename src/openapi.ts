import type { INestApplication } from '@nestjs/common';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { z } from 'zod';
import { toComponents } from './api-schemas.js';
import { ProblemSchema } from './platform/errors/errors.schemas.js';
import { REST_OF_PATH } from './platform/http/named-wildcards.js';

const DESCRIPTION =
  'The real Claude CLI as a service: submit a prompt, follow its events, cancel it, find it again. ' +
  'An HTTP error means that no process was made; what became of one is in its `status`.';

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
    .addTag('Operations', 'For administrators')
    .addTag('Auth', 'Access tokens and API keys')
    .build();
  const document = SwaggerModule.createDocument(app, config, {
    standardSchemaConverter: (schema, { schemaType }) =>
      schema instanceof z.core.$ZodType ? toComponents(schema, schemaType) : undefined,
  });
  for (const parameter of queryObjects(document))
    Object.assign(parameter, { style: 'deepObject', explode: true });
  const schemas = { ...document.components?.schemas, ...toComponents(ProblemSchema, 'output').components };
  return {
    ...document,
    paths: withNamedWildcards(document.paths),
    components: { ...document.components, schemas },
  };
}

/** A path of OpenAPI has names in braces for what a route has a `*` for. */
const withNamedWildcards = (paths: OpenAPIObject['paths']): OpenAPIObject['paths'] =>
  Object.fromEntries(
    Object.entries(paths).map(([path, item]) => [path.replace(/\*$/, `{${REST_OF_PATH}}`), item]),
  );

/** The document at /openapi.json and Swagger UI at /docs, built when they are first asked for. */
export function serveOpenApi(app: INestApplication): void {
  SwaggerModule.setup('docs', app, () => buildOpenApi(app), { jsonDocumentUrl: 'openapi.json' });
}

/** `metadata[key]=value` is what OpenAPI calls a deep object; its default would send `key=value`. */
function queryObjects({ paths }: OpenAPIObject) {
  const operations = Object.values(paths).flatMap(
    (path) => Object.values(path) as { parameters?: Parameter[] }[],
  );
  return operations
    .flatMap(({ parameters = [] }) => parameters)
    .filter((parameter) => parameter.in === 'query' && parameter.schema?.type === 'object');
}

interface Parameter {
  in: string;
  schema?: { type?: string };
}
