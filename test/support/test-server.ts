import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MessagesApi, startMessagesApi } from '../../libs/messages-api/index.js';
import { readConfig, requireStores, type ServerConfig } from '../../src/platform/config/config.js';
import { type RunningServer, startServer } from '../../src/server.js';
import { ApiClient } from './api-client.js';
import { NO_SUPPLY } from './no-supply.js';
import { createStores, type TestStores } from './stores.js';
import { removeLeft } from './left-directory.js';

export interface TestServer {
  url: string;
  /** With the key of the first start, which may execute and read. */
  client: ApiClient;
  /** Signed in as the administrator. */
  administrator: ApiClient;
  /** What the CLI talks to. */
  messages: MessagesApi;
  stores: TestStores;
  dataDirectory: string;
  server: RunningServer;
  stop: () => Promise<void>;
}

/** Another API server on the stores of the first. */
export function startBeside(
  { stores, dataDirectory }: TestServer,
  environment: NodeJS.ProcessEnv = {},
): Promise<RunningServer> {
  return startServer(configOf(stores, dataDirectory, { ROLE: 'api', ...environment }));
}

export const ADMIN_PASSWORD = 'a password for tests';

type Settings = NodeJS.ProcessEnv | ((stores: TestStores) => Promise<NodeJS.ProcessEnv>);

/** A whole server in this process: real stores, real queue, real sockets and the real CLI, which talks to a scripted API. */
export async function startTestServer(settings: Settings = {}): Promise<TestServer> {
  const stores = await createStores();
  const environment = typeof settings === 'function' ? await settings(stores) : settings;
  const messages = await startMessagesApi();
  const dataDirectory = await mkdtemp(join(tmpdir(), 'claude-runner-test-'));
  const config = configOf(stores, dataDirectory, {
    ADMIN_PASSWORD,
    ANTHROPIC_API_KEY: 'sk-ant-test',
    ANTHROPIC_BASE_URL: messages.url,
    CLAUDE_API_MAX_RETRIES: '1',
    CLAUDE_BREAKER_FAILURES: '1000000',
    ...NO_SUPPLY,
    CLAUDE_BWRAP_PATH: process.env.TEST_BWRAP_PATH,
    SHUTDOWN_GRACE_MS: '1',
    ...environment,
  });
  const server = await startServer(config);
  const key = (await readFile(join(dataDirectory, 'api-key'), 'utf8')).trim();
  const administrator = await ApiClient.login(server.url, config.ADMIN_EMAIL, ADMIN_PASSWORD);
  return {
    url: server.url,
    client: new ApiClient(server.url, key),
    administrator,
    messages,
    stores,
    dataDirectory,
    server,
    stop: async () => {
      server.hurry();
      await server.close();
      await messages.close();
      await stores.drop();
      await removeLeft(dataDirectory);
    },
  };
}

/** What a server on these stores is started with. */
export function configOf(
  { databaseUrl, redisUrl }: Pick<TestStores, 'databaseUrl' | 'redisUrl'>,
  dataDirectory: string,
  environment: NodeJS.ProcessEnv,
): ServerConfig {
  return requireStores(
    readConfig({
      NODE_ENV: 'test',
      PORT: '0',
      LOG_LEVEL: 'silent',
      DATA_DIR: dataDirectory,
      DATABASE_URL: databaseUrl,
      REDIS_URL: redisUrl,
      ...environment,
    }),
  );
}
