import { Inject, Injectable, Logger } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { REDIS, REDIS_SUBSCRIBER } from '../platform/redis/redis.module.js';

const REMOVED = 'claude-runner:sessions-removed';

/** What servers tell each other of sessions, by Redis's pub/sub. Any of it may get lost. */
@Injectable()
export class SessionsEvents {
  private readonly logger = new Logger(SessionsEvents.name);

  constructor(
    @Inject(REDIS) private readonly redis: Redis,
    @Inject(REDIS_SUBSCRIBER) private readonly subscriber: Redis,
  ) {}

  /** A session is no more, or something that was said in it; this is the key of its workspace. */
  tellRemoved(workspaceKey: string): void {
    this.redis.publish(REMOVED, workspaceKey).catch((err: unknown) => this.logger.debug({ err }));
  }

  /** @returns once Redis has said that messages will come; never, while Redis is away */
  async onRemoved(listener: (workspaceKey: string) => void): Promise<void> {
    this.subscriber.on('message', (channel: string, message: string) => {
      if (channel === REMOVED) listener(message);
    });
    await this.subscriber.subscribe(REMOVED);
  }
}
