import { Global, Inject, Module, type OnApplicationShutdown, type Provider } from '@nestjs/common';
import { Redis, type RedisOptions } from 'ioredis';
import { CONFIG, type ServerConfig } from '../config/config.js';

/** The connection for commands. */
export const REDIS = Symbol('Redis');
/** A connection that only subscribes. */
export const REDIS_SUBSCRIBER = Symbol('RedisSubscriber');

/** How long a Redis that has fallen silent is waited for. */
const COMMAND_TIMEOUT_MS = 2_000;

/** Bull refuses clients with other settings than these two. */
export const REDIS_OPTIONS = { maxRetriesPerRequest: null, enableReadyCheck: false } satisfies RedisOptions;

const connection = (token: symbol, options: RedisOptions): Provider => ({
  provide: token,
  inject: [CONFIG],
  useFactory: (config: ServerConfig) => {
    const client = new Redis(config.REDIS_URL, { ...REDIS_OPTIONS, ...options });
    // Health shows an outage, and the client reconnects by itself; without a listener it would end the server.
    client.on('error', () => undefined);
    return client;
  },
});

@Global()
@Module({
  // Commands fail soon while Redis is away: what waits on them has PostgreSQL to fall back on.
  providers: [
    connection(REDIS, { enableOfflineQueue: false, commandTimeout: COMMAND_TIMEOUT_MS, lazyConnect: false }),
    connection(REDIS_SUBSCRIBER, { autoResubscribe: true }),
  ],
  exports: [REDIS, REDIS_SUBSCRIBER],
})
export class RedisModule implements OnApplicationShutdown {
  constructor(
    @Inject(REDIS) private readonly redis: Redis,
    @Inject(REDIS_SUBSCRIBER) private readonly subscriber: Redis,
  ) {}

  onApplicationShutdown(): void {
    this.redis.disconnect();
    this.subscriber.disconnect();
  }
}
