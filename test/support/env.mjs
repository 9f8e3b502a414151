// Runs before every test file: a test sees the environment that it sets up itself, not the machine's.
process.env.NODE_ENV = 'test';
for (const name of [
  'PORT',
  'HOST',
  'DATA_DIR',
  'DATABASE_URL',
  'REDIS_URL',
  'ROLE',
  'ANTHROPIC_API_KEY',
  'ANTHROPIC_BASE_URL',
]) {
  delete process.env[name];
}
