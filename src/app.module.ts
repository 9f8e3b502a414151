import { type DynamicModule, Module } from '@nestjs/common';
import { APP_FILTER, APP_PIPE } from '@nestjs/core';
import { AuthModule } from './auth/auth.module.js';
import { ClaudeModule } from './claude/claude.module.js';
import { MetricsModule } from './metrics/metrics.module.js';
import type { ServerConfig } from './platform/config/config.js';
import { ConfigModule } from './platform/config/config.module.js';
import { ProblemFilter } from './platform/errors/problem.filter.js';
import { ValidationPipe } from './platform/errors/validation.pipe.js';
import { HealthModule } from './platform/health/health.module.js';
import { loggingModule } from './platform/logging/logging.module.js';
import { PrismaModule } from './platform/prisma/prisma.module.js';
import { RedisModule } from './platform/redis/redis.module.js';
import { ProcessesModule } from './processes/processes.module.js';

/** The composition: what every server needs, and the features that its role asks for. */
@Module({})
export class AppModule {
  static for(config: ServerConfig): DynamicModule {
    const processes = ProcessesModule.for(config);
    return {
      module: AppModule,
      imports: [
        ConfigModule.of(config),
        loggingModule(config),
        PrismaModule,
        RedisModule,
        HealthModule,
        AuthModule.for(config),
        processes,
        ...(config.servesApi ? [ClaudeModule.over(processes), MetricsModule.over(processes)] : []),
      ],
      providers: [
        { provide: APP_FILTER, useClass: ProblemFilter },
        { provide: APP_PIPE, useClass: ValidationPipe },
      ],
    };
  }
}
