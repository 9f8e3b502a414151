import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEmbeddedPostgres, startEmbeddedRedis } from '../dist/libs/embedded-services/index.js';
import { startMessagesApi, textAnswer } from '../dist/libs/messages-api/index.js';
import { readConfig, requireStores } from '../dist/src/platform/config/config.js';
import { startServer } from '../dist/src/server.js';

const ANSWER = ['The ', 'answer ', 'comes ', 'at ', 'once.'];

/** A whole server on stores of its own, durable as they are by default, with a Messages API that answers at once. */
export async function withServer(use) {
  const directory = mkdtempSync(join(tmpdir(), 'claude-runner-bench-'));
  const redisCache = new URL('../.cache/distribution', import.meta.url).pathname;
  const messages = await startMessagesApi({ script: () => textAnswer(ANSWER) });
  const postgres = await startEmbeddedPostgres({ directory: join(directory, 'postgres') });
  const redis = await startEmbeddedRedis({ directory: join(directory, 'redis'), cacheDirectory: redisCache });
  const config = requireStores(
    readConfig({
      PORT: '0',
      LOG_LEVEL: 'warn',
      DATA_DIR: directory,
      DATABASE_URL: postgres.url,
      REDIS_URL: redis.url,
      ANTHROPIC_API_KEY: 'sk-ant-bench',
      ANTHROPIC_BASE_URL: messages.url,
    }),
  );
  const server = await startServer(config);
  try {
    const key = readFileSync(join(directory, 'api-key'), 'utf8').trim();
    await use({ url: server.url, key, messagesUrl: messages.url });
  } finally {
    await server.close();
    await redis.stop();
    await postgres.stop();
    await messages.close();
    rmSync(directory, { recursive: true, force: true });
  }
}
