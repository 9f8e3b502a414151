import { BullModule } from '@nestjs/bull';
import { type DynamicModule, Module } from '@nestjs/common';
import { Redis } from 'ioredis';
import { CONFIG, type ServerConfig } from '../config/config.js';
import { REDIS_OPTIONS } from '../redis/redis.module.js';

const KEY_PREFIX = 'claude-runner';

/** Bull's connection. Features register their queues on it. */
@Module({})
export class QueueModule {
  static forRoot(): DynamicModule {
    return {
      module: QueueModule,
      imports: [
        BullModule.forRootAsync({
          inject: [CONFIG],
          useFactory: (config: ServerConfig) => ({
            prefix: KEY_PREFIX,
            createClient: () => new Redis(config.REDIS_URL, REDIS_OPTIONS).on('error', () => undefined),
          }),
        }),
      ],
    };
  }
}
