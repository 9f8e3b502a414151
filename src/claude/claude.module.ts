import { type DynamicModule, Module } from '@nestjs/common';
import { ClaudeHealthController } from './claude-health.controller.js';
import { ClaudeHealthService } from './claude-health.service.js';
import { ClaudeQueueController } from './claude-queue.controller.js';
import { ClaudeQueueService } from './claude-queue.service.js';
import { ClaudeController } from './claude.controller.js';
import { ClaudeGateway } from './claude.gateway.js';
import { ClaudeService } from './claude.service.js';
import { QueueAnnouncer } from './queue-announcer.js';
import { SocketFollows } from './socket-follows.js';

@Module({})
export class ClaudeModule {
  /** @param processes the module that it is the front door of */
  static over(processes: DynamicModule): DynamicModule {
    return {
      module: ClaudeModule,
      imports: [processes],
      controllers: [ClaudeController, ClaudeHealthController, ClaudeQueueController],
      providers: [
        ClaudeGateway,
        ClaudeHealthService,
        ClaudeQueueService,
        ClaudeService,
        QueueAnnouncer,
        SocketFollows,
      ],
    };
  }
}
