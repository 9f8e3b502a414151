import { Inject, Injectable, Logger } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { REDIS, REDIS_SUBSCRIBER } from '../platform/redis/redis.module.js';
import type { ProcessEvent } from './process-events.schemas.js';

const EVENTS = 'claude-runner:process-events:';
const COMMANDS = 'claude-runner:process-commands';

type Listener = (message: string) => void;

/** What servers tell each other at once, by Redis's pub/sub. Any of it may get lost: PostgreSQL holds every fact. */
@Injectable()
export class ProcessChannel {
  private readonly logger = new Logger(ProcessChannel.name);
  private readonly listeners = new Map<string, Listener>();

  constructor(
    @Inject(REDIS) private readonly redis: Redis,
    @Inject(REDIS_SUBSCRIBER) private readonly subscriber: Redis,
  ) {
    subscriber.on('message', (channel: string, message: string) => this.hear(channel, message));
  }

  /** Tells readers what has been committed to a log. */
  publishEvents(processId: string, events: ProcessEvent[]): void {
    this.publish(EVENTS + processId, JSON.stringify(events));
  }

  /** Tells workers that one of them should look into the inbox of a process. */
  publishCommand(processId: string): void {
    this.publish(COMMANDS, processId);
  }

  /** @returns once Redis has said that messages will come; never, while Redis is away */
  async subscribeEvents(processId: string, listener: (events: ProcessEvent[]) => void): Promise<void> {
    await this.subscribe(EVENTS + processId, (message) => listener(JSON.parse(message) as ProcessEvent[]));
  }

  unsubscribeEvents(processId: string): void {
    this.listeners.delete(EVENTS + processId);
    this.subscriber.unsubscribe(EVENTS + processId).catch((err: unknown) => this.logger.debug({ err }));
  }

  async subscribeCommands(listener: (processId: string) => void): Promise<void> {
    await this.subscribe(COMMANDS, listener);
  }

  // Whatever else publishes on this Redis must not end the server.
  private hear(channel: string, message: string): void {
    try {
      this.listeners.get(channel)?.(message);
    } catch (err) {
      this.logger.warn({ err, channel }, 'A message could not be read.');
    }
  }

  private async subscribe(channel: string, listener: Listener): Promise<void> {
    this.listeners.set(channel, listener);
    await this.subscriber.subscribe(channel);
  }

  private publish(channel: string, message: string): void {
    this.redis.publish(channel, message).catch((err: unknown) => this.logger.debug({ err, channel }));
  }
}
