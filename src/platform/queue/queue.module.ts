import { BullModule } from '@nestjs/bull';
import { type DynamicModule, Module } from '@nestjs/common';
import { QueueConnections } from './queue-connections.js';

const KEY_PREFIX = 'claude-runner';

@Module({ providers: [QueueConnections], exports: [QueueConnections] })
class QueueConnectionsModule {}

/** Where Bull's queues keep what they hold. Features register their queues on it. */
@Module({})
export class QueueModule {
  static forRoot(): DynamicModule {
    return {
      module: QueueModule,
      imports: [
        BullModule.forRootAsync({
          imports: [QueueConnectionsModule],
          inject: [QueueConnections],
          useFactory: (connections: QueueConnections) => ({
            prefix: KEY_PREFIX,
            createClient: () => connections.open(),
          }),
        }),
      ],
    };
  }
}
