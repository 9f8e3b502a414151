import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { CONFIG, type ServerConfig } from '../config/config.js';
import { RedisConnection } from '../redis/redis-connection.js';
import { REDIS_OPTIONS } from '../redis/redis.module.js';

/** The connections of Bull's queues: Bull closes only what it has opened itself. */
@Injectable()
export class QueueConnections implements OnApplicationShutdown {
  private readonly connections: QueueConnection[] = [];

  constructor(@Inject(CONFIG) private readonly config: ServerConfig) {}

  open(): RedisConnection {
    const connection = new QueueConnection(this.config.REDIS_URL, REDIS_OPTIONS);
    this.connections.push(connection);
    return connection;
  }

  /**
   * After that of the queues, whose module stands above this one's. Where Redis is away, Bull still waits for it in places
   * where a failure would end the server: such a connection ends with the process.
   */
  onApplicationShutdown(): void {
    for (const connection of this.connections) if (connection.status === 'ready') connection.disconnect();
  }
}

/**
 * Bull connects it again when it pauses and when it closes. It then waits for that, and lets a failure end the server; but
 * whoever needs the connection waits for it anyway, and it goes on trying by itself.
 */
class QueueConnection extends RedisConnection {
  override connect(): Promise<void> {
    super.connect().catch(() => undefined);
    return Promise.resolve();
  }
}
