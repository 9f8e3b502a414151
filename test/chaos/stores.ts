import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import pg from 'pg';
import {
  type EmbeddedService,
  startEmbeddedPostgres,
  startEmbeddedRedis,
} from '../../libs/embedded-services/index.js';
import { childrenOf, isThere, kill } from './os-processes.js';

const POLL_MS = 10;
const MAX_CONNECTIONS = 200;

/** A store that can be killed and started again on its data. */
interface Store {
  /** Where it is now: its port is another after every start. Its user and password stay. */
  readonly url: string;
  /** kill -9; resolves when it is gone. */
  kill(): Promise<void>;
  /** Starts it again on the same data, unless it runs. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** PostgreSQL as `npm start` brings it: durable. */
export class ChaosPostgres implements Store {
  private pool: pg.Pool;

  private constructor(
    private readonly directory: string,
    private service: EmbeddedService,
  ) {
    this.pool = poolOf(service.url);
  }

  static async start(): Promise<ChaosPostgres> {
    const directory = mkdtempSync(join(tmpdir(), 'chaos-postgres-'));
    return new ChaosPostgres(directory, await bringPostgres(directory));
  }

  get url(): string {
    return this.service.url;
  }

  /** Directly, not through a proxy. @throws while it is away */
  async query<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<Row[]> {
    return (await this.pool.query<Row>(sql, values)).rows;
  }

  kill(): Promise<void> {
    return killAndWait(this.service.pid);
  }

  /** Kills one of the processes that serve a connection: PostgreSQL then ends all of them, and recovers. */
  killBackend(pick: number): string | null {
    const backends = childrenOf(this.service.pid).filter(({ command }) => command.includes('127.0.0.1('));
    const backend = backends[pick % Math.max(1, backends.length)];
    if (!backend) return null;
    kill(backend.pid, 'SIGKILL');
    return backend.command;
  }

  async restart(): Promise<void> {
    if (isThere(this.service.pid)) return;
    await this.pool.end().catch(() => undefined);
    this.service = await bringPostgres(this.directory);
    this.pool = poolOf(this.service.url);
  }

  async stop(): Promise<void> {
    await this.pool.end().catch(() => undefined);
    await this.service.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Redis, which keeps its data over a kill (an append-only file) or begins empty each time. */
export class ChaosRedis implements Store {
  private constructor(
    private readonly directory: string,
    readonly isDurable: boolean,
    private readonly password: string,
    private service: EmbeddedService,
  ) {}

  /** @param password of an earlier one, whose callers must not notice that this is another */
  static async start(isDurable: boolean, password?: string): Promise<ChaosRedis> {
    const directory = mkdtempSync(join(tmpdir(), 'chaos-redis-'));
    const service = await bringRedis(directory, isDurable, password);
    return new ChaosRedis(directory, isDurable, password ?? new URL(service.url).password, service);
  }

  get url(): string {
    return withPassword(this.service.url, this.password);
  }

  /** Another one in its place, empty. */
  async successor(isDurable: boolean): Promise<ChaosRedis> {
    const successor = await ChaosRedis.start(isDurable, this.password);
    await this.stop();
    return successor;
  }

  /** @returns null where it is away */
  async flush(): Promise<string | null> {
    return withRedis(this.url, (redis) => redis.flushall()).catch(() => null);
  }

  kill(): Promise<void> {
    return killAndWait(this.service.pid);
  }

  async restart(): Promise<void> {
    if (isThere(this.service.pid)) return;
    this.service = await bringRedis(this.directory, this.isDurable, this.password);
  }

  async stop(): Promise<void> {
    await this.service.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const bringPostgres = (directory: string) =>
  startEmbeddedPostgres({ directory, durable: true, maxConnections: MAX_CONNECTIONS });

/** It makes up a new password with every start; whoever knew the old one must not notice. */
async function bringRedis(directory: string, durable: boolean, password?: string): Promise<EmbeddedService> {
  const service = await startEmbeddedRedis({
    directory,
    durable,
    cacheDirectory: resolve('.cache/distribution'),
    searchPath: process.env.PATH ?? '',
  });
  if (password !== undefined)
    await withRedis(service.url, (redis) => redis.config('SET', 'requirepass', password));
  return service;
}

const withPassword = (url: string, password: string) => Object.assign(new URL(url), { password }).toString();

function poolOf(connectionString: string): pg.Pool {
  const pool = new pg.Pool({ connectionString, max: 3, connectionTimeoutMillis: 2000 });
  pool.on('error', () => undefined); // it is killed on purpose
  return pool;
}

async function withRedis<T>(url: string, act: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, { maxRetriesPerRequest: 0, retryStrategy: () => null });
  redis.on('error', () => undefined);
  return act(redis).finally(() => redis.disconnect());
}

async function killAndWait(pid: number): Promise<void> {
  kill(pid, 'SIGKILL');
  while (isThere(pid)) await sleep(POLL_MS);
}
