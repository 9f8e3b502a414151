import 'reflect-metadata';
import { join, resolve } from 'node:path';
import {
  type EmbeddedService,
  findBubblewrap,
  lockDirectory,
  startEmbeddedPostgres,
  startEmbeddedRedis,
} from '../libs/embedded-services/index.js';
import { API_KEY_FILE, PASSWORD_FILE } from './auth/first-start.js';
import { explainStartFailure } from './explain-start-failure.js';
import { type Config, environmentOfProcess, readConfig, requireStores } from './platform/config/config.js';
import { serve } from './serve.js';
import type { RunningServer } from './server.js';
import { StopSignals } from './stop-signals.js';

const say = (line: string) => console.log(`▸ ${line}`);

/** Beside the checkout, so that another data directory does not fetch it again. */
const PACKAGE_CACHE = '.cache/distribution';

/** What `npm start` runs once everything is built: brings the stores that nobody named, then serves. */
async function start(): Promise<void> {
  const stop = new StopSignals();
  const config = readConfig(environmentOfProcess());
  const lock = await lockDirectory(config.DATA_DIR);
  const services: EmbeddedService[] = [];
  try {
    const [urls, CLAUDE_BWRAP_PATH] = await Promise.all([
      bringStores(config, services, stop),
      bringBubblewrap(config, stop),
    ]);
    if (stop.wasGiven) return;
    say('Starting the server');
    await serve(requireStores({ ...config, ...urls, CLAUDE_BWRAP_PATH }), stop, {
      onReady: (server) => console.log(welcome(config, server)),
      onStopping: () => say('Stopping: what runs may end (Ctrl-C again: at once)'),
    });
  } finally {
    for (const service of services.reverse()) await service.stop();
    await lock.release();
    say('Stopped');
  }
}

/** Undefined where there is none: the server then says what that means. */
async function bringBubblewrap(config: Config, stop: StopSignals): Promise<string | undefined> {
  const { CLAUDE_BWRAP_PATH: given, CLAUDE_SANDBOX: sandbox, runsProcesses } = config;
  if (given !== undefined || sandbox === 'off' || !runsProcesses || process.platform !== 'linux')
    return given;
  try {
    return await findBubblewrap({
      cacheDirectory: resolve(PACKAGE_CACHE),
      searchPath: process.env.PATH,
      onProgress: say,
      signal: stop.signal,
    });
  } catch (error) {
    if (!stop.wasGiven)
      say(`No sandbox, so no Bash for Claude: apt-get install bubblewrap (${(error as Error).message})`);
    return undefined;
  }
}

async function bringStores(config: Config, services: EmbeddedService[], stop: StopSignals) {
  const { DATA_DIR, DATABASE_URL, REDIS_URL } = config;
  const brought = async (starting: Promise<EmbeddedService>) => {
    const service = await starting;
    services.push(service);
    return service.url;
  };
  const [database, redis] = await Promise.allSettled([
    DATABASE_URL ??
      brought(
        startEmbeddedPostgres({
          directory: join(DATA_DIR, 'postgres'),
          onProgress: say,
          signal: stop.signal,
        }),
      ),
    REDIS_URL ??
      brought(
        startEmbeddedRedis({
          directory: join(DATA_DIR, 'redis'),
          cacheDirectory: resolve(PACKAGE_CACHE),
          searchPath: process.env.PATH,
          onProgress: say,
          signal: stop.signal,
        }),
      ),
  ]);
  if (database.status === 'rejected') throw database.reason;
  if (redis.status === 'rejected') throw redis.reason;
  return { DATABASE_URL: database.value, REDIS_URL: redis.value };
}

function welcome(config: Config, { url, administratorEmail }: RunningServer): string {
  const base = config.PUBLIC_URL ?? url.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:');
  const keyFile = join(config.DATA_DIR, API_KEY_FILE);
  const password =
    config.ADMIN_PASSWORD === undefined
      ? `password in ${join(config.DATA_DIR, PASSWORD_FILE)}`
      : 'ADMIN_PASSWORD';
  const demo =
    '\n  DEMO MODE: there is no ANTHROPIC_API_KEY. The Claude CLI is the real one, its answers are scripted.\n';
  return `
  Claude Runner   ${base}
  Swagger UI      ${base}/docs
  API key         ${keyFile}   (may execute and read)
  Administrator   ${administratorEmail ?? '–'}, ${password}
${config.demo ? demo : ''}
  Try it:
  curl -s ${base}/api/v1/claude/execute -H "Authorization: Bearer $(cat ${quoted(keyFile)})" -H 'Content-Type: application/json' -d '{"prompt":"Say hello"}'
`;
}

const quoted = (path: string) =>
  /^[\w/.-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`;

try {
  await start();
} catch (error) {
  console.error(explainStartFailure(error));
  process.exitCode = 1;
}
process.exit();
