import { type DynamicModule, Module } from '@nestjs/common';
import { ClaudeHealthController } from './claude-health.controller.js';
import { ClaudeHealthService } from './claude-health.service.js';
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
      controllers: [ClaudeController, ClaudeHealthController],
      providers: [ClaudeGateway, ClaudeHealthService, ClaudeService, QueueAnnouncer, SocketFollows],
    };
  }
}
