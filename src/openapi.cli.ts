import { writeFileSync } from 'node:fs';
import { NestFactory } from '@nestjs/core';
import { AppModule } from './app.module.js';
import { buildOpenApi } from './openapi.js';
import { readConfig, requireStores } from './platform/config/config.js';

/** Writes the OpenAPI document. In preview no provider is made, so that it takes no store. */
const [target = 'openapi.json'] = process.argv.slice(2);
const config = requireStores(
  readConfig({ ROLE: 'api', DATABASE_URL: 'postgresql://preview', REDIS_URL: 'redis://preview' }),
);
const app = await NestFactory.create(AppModule.for(config), {
  preview: true,
  logger: false,
  abortOnError: false,
});
writeFileSync(target, `${JSON.stringify(buildOpenApi(app), null, 2)}\n`);
await app.close();
