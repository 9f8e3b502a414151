import {
  type BeforeApplicationShutdown,
  Inject,
  Injectable,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { Redis } from 'ioredis';
import { CONFIG, type ServerConfig } from '../config/config.js';
import { REDIS_OPTIONS } from '../redis/redis.module.js';

/** How long Bull may take to say good-bye to Redis. */
const CLOSE_GRACE_MS = 3_000;

/** The connections of Bull's queues. Bull leaves those that it is given open, and closes for ever while Redis is away. */
@Injectable()
export class QueueConnections implements BeforeApplicationShutdown, OnApplicationShutdown {
  private readonly connections: Redis[] = [];
  private cut: NodeJS.Timeout | null = null;

  constructor(@Inject(CONFIG) private readonly config: ServerConfig) {}

  open(): Redis {
    const connection = new QueueConnection(this.config.REDIS_URL, REDIS_OPTIONS);
    connection.on('error', () => undefined); // health shows it
    this.connections.push(connection);
    return connection;
  }

  beforeApplicationShutdown(): void {
    this.cut = setTimeout(() => this.disconnect(), CLOSE_GRACE_MS);
  }

  /** After that of the queues, whose module stands above this one's. */
  onApplicationShutdown(): void {
    if (this.cut) clearTimeout(this.cut);
    this.disconnect();
  }

  private disconnect(): void {
    for (const connection of this.connections) {
      // Between two tries it would keep its commands for ever; a try that is broken off gives them up.
      if (connection.status === 'reconnecting') void connection.connect();
      connection.disconnect();
    }
  }
}

/**
 * Bull also connects it again, when it pauses and when it closes. It then waits for that, and lets a failure end the server;
 * but whoever needs the connection waits for it anyway, and it goes on trying by itself.
 */
class QueueConnection extends Redis {
  override connect(): Promise<void> {
    super.connect().catch(() => undefined);
    return Promise.resolve();
  }
}
