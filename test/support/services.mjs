// Runs once before the tests that need stores: real ones, embedded unless DATABASE_URL and REDIS_URL name others. Brings
// bubblewrap as well.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import {
  findBubblewrap,
  startEmbeddedPostgres,
  startEmbeddedRedis,
} from '../../dist/libs/embedded-services/index.js';

export default async function startServices() {
  // Jest calls this once a project that has it.
  if (process.env.TEST_DATABASE_URL) return;
  const cacheDirectory = resolve('.cache/distribution');
  if (process.platform === 'linux') {
    const { TEST_BWRAP_SEARCH_PATH: searchPath = process.env.PATH } = process.env;
    process.env.TEST_BWRAP_PATH = await findBubblewrap({ cacheDirectory, searchPath });
  }
  // A folder a run: two runs in one checkout do not stop each other's servers.
  const directory = mkdtempSync(join(tmpdir(), 'claude-runner-services-'));
  const started = [];
  const bring = async (given, start) => {
    if (given) return given;
    const service = await start();
    started.push(service);
    return service.url;
  };
  const postgres = { directory: join(directory, 'postgres'), durable: false, maxConnections: 300 };
  const redis = {
    directory: join(directory, 'redis'),
    durable: false,
    cacheDirectory,
    searchPath: process.env.PATH,
  };
  const [databaseUrl, redisUrl] = await Promise.all([
    bring(process.env.DATABASE_URL, () => startEmbeddedPostgres(postgres)),
    bring(process.env.REDIS_URL, () => startEmbeddedRedis(redis)),
  ]);
  process.env.TEST_DATABASE_URL = databaseUrl;
  process.env.TEST_REDIS_URL = redisUrl;
  globalThis.stopTestServices = async () => {
    for (const service of started) await service.stop();
    rmSync(directory, { recursive: true, force: true });
  };
}
