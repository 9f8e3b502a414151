// Runs before every test file: a test sees the environment that it sets up itself, not the machine's.
const SETTINGS =
  /^(PORT|HOST|DATA_DIR|ROLE|(DATABASE|REDIS|PUBLIC)_URL(_FILE)?|(ADMIN|ANTHROPIC|CLAUDE)_.+)$/;

process.env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !SETTINGS.test(name)));
process.env.NODE_ENV = 'test';
