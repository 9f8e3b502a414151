import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ApiClient } from './api-client.js';
import { removeLeft } from './left-directory.js';
import { NO_SUPPLY } from './no-supply.js';
import { type Started, startProgram } from './started.js';

export interface SpawnedServer extends Started {
  url: string;
  dataDirectory: string;
  /** The key that the first server on a database writes into its data directory. */
  client: () => ApiClient;
  /** Sends SIGTERM and waits for the end. */
  terminate: () => Promise<{ code: number | null }>;
  remove: () => Promise<void>;
}

/** The built server, as an image runs it (`npm run start:prod`), once it listens. */
export async function spawnServer(environment: NodeJS.ProcessEnv): Promise<SpawnedServer> {
  const dataDirectory = environment.DATA_DIR ?? mkdtempSync(join(tmpdir(), 'claude-runner-spawned-'));
  const started = startProgram(['--enable-source-maps', 'dist/src/main.js'], {
    PORT: '0',
    LOG_LEVEL: 'fatal',
    CLAUDE_API_MAX_RETRIES: '1',
    ...NO_SUPPLY,
    CLAUDE_BWRAP_PATH: process.env.TEST_BWRAP_PATH,
    ...environment,
    DATA_DIR: dataDirectory,
  });
  const url = /http:\S+?(?=,|$)/.exec(await started.line(/listens on/))?.[0] ?? '';
  return {
    ...started,
    url,
    dataDirectory,
    client: () => new ApiClient(url, readFileSync(join(dataDirectory, 'api-key'), 'utf8').trim()),
    terminate: () => {
      started.kill('SIGTERM');
      return started.exited;
    },
    remove: () => removeLeft(dataDirectory),
  };
}

/** Kills the servers and removes their data, once all are gone: two of them may have had the same directory. */
export async function killAll(servers: SpawnedServer[]): Promise<void> {
  for (const server of servers) server.kill('SIGKILL');
  await Promise.all(servers.map(({ exited }) => exited));
  for (const server of servers) await server.remove();
}
