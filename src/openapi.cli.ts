import 'reflect-metadata';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { stringify } from 'yaml';
import { AppModule } from './app.module.js';
import { buildAsyncApi } from './asyncapi.js';
import { buildOpenApi } from './openapi.js';
import { readConfig, requireStores } from './platform/config/config.js';

// Writes the API documents into the folder that is named, or here. In preview no provider is made, so it takes no store.
const [directory = '.'] = process.argv.slice(2);
const config = requireStores(
  readConfig({ ROLE: 'api', DATABASE_URL: 'postgresql://preview', REDIS_URL: 'redis://preview' }),
);
const app = await NestFactory.create(AppModule.for(config), new FastifyAdapter(), {
  preview: true,
  logger: false,
  abortOnError: false,
});
writeFileSync(join(directory, 'openapi.json'), `${JSON.stringify(buildOpenApi(app), null, 2)}\n`);
writeFileSync(join(directory, 'asyncapi.yaml'), stringify(buildAsyncApi(), { aliasDuplicateObjects: false }));
await app.close();
