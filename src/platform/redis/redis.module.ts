import {
  Global,
  Inject,
  Module,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type Provider,
} from '@nestjs/common';
import type { Redis, RedisOptions } from 'ioredis';
import { CONFIG, type ServerConfig } from '../config/config.js';
import { requireNoEviction } from './eviction-policy.js';
import { RedisConnection } from './redis-connection.js';

/** The connection for commands. */
export const REDIS = Symbol('Redis');
/** A connection that only subscribes. */
export const REDIS_SUBSCRIBER = Symbol('RedisSubscriber');

/** How long a Redis that has fallen silent is waited for. */
const COMMAND_TIMEOUT_MS = 2_000;
/** A connection that is cut without a word is noticed by an answer that does not come. Bull's longest question takes 5 s. */
const ANSWER_TIMEOUT_MS = 12_000;
/** Nobody asks a subscriber anything: it would never notice. */
const SUBSCRIBER_PING_MS = 5_000;

/** Bull refuses clients with other settings of the first two. */
export const REDIS_OPTIONS = {
  maxRetriesPerRequest: null,
  enableReadyCheck: false,
  socketTimeout: ANSWER_TIMEOUT_MS,
} satisfies RedisOptions;

const connection = (token: symbol, options: RedisOptions): Provider => ({
  provide: token,
  inject: [CONFIG],
  useFactory: (config: ServerConfig) =>
    new RedisConnection(config.REDIS_URL, { ...REDIS_OPTIONS, ...options }),
});

@Global()
@Module({
  // The ready check is what makes a connection that was reset before it had signed in come back, without the offline queue.
  // Commands fail soon while Redis is away: what waits on them has PostgreSQL to fall back on.
  providers: [
    connection(REDIS, {
      enableOfflineQueue: false,
      enableReadyCheck: true,
      commandTimeout: COMMAND_TIMEOUT_MS,
      lazyConnect: false,
    }),
    connection(REDIS_SUBSCRIBER, { autoResubscribe: true }),
  ],
  exports: [REDIS, REDIS_SUBSCRIBER],
})
export class RedisModule implements OnApplicationBootstrap, OnApplicationShutdown {
  private pinging: NodeJS.Timeout | null = null;

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    @Inject(REDIS) private readonly redis: Redis,
    @Inject(REDIS_SUBSCRIBER) private readonly subscriber: Redis,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    this.pinging = setInterval(() => {
      this.subscriber.ping().catch(() => undefined);
    }, SUBSCRIBER_PING_MS);
    if (!this.config.REDIS_ALLOW_EVICTION) await requireNoEviction(this.redis);
  }

  onApplicationShutdown(): void {
    if (this.pinging) clearInterval(this.pinging);
    this.redis.disconnect();
    this.subscriber.disconnect();
  }
}
