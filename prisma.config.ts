import { defineConfig } from 'prisma/config';

// `generate`, `validate` and `format` never call the native schema engine, yet Prisma's CLI downloads it first unless
// this names an executable. docs/development.md says how migrations are authored without it.
process.env.PRISMA_SCHEMA_ENGINE_BINARY ??= process.execPath;

export default defineConfig({
  schema: 'prisma/schema.prisma',
  migrations: { path: 'prisma/migrations' },
  datasource: { url: process.env.DATABASE_URL ?? 'postgresql://postgres@127.0.0.1:5432/claude_runner' },
});
