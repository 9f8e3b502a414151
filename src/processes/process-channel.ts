import { Inject, Injectable, Logger } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { v7 as uuid } from 'uuid';
import { REDIS, REDIS_SUBSCRIBER } from '../platform/redis/redis.module.js';
import type { ProcessEvent } from './process-events.schemas.js';

const EVENTS = 'claude-runner:process-events:';
const COMMANDS = 'claude-runner:process-commands';

type EventsListener = (events: ProcessEvent[]) => void;

/** What servers tell each other at once, by Redis's pub/sub. Any of it may get lost: PostgreSQL holds every fact. */
@Injectable()
export class ProcessChannel {
  private readonly logger = new Logger(ProcessChannel.name);
  /** Stands before what this server publishes: its own readers have had it, sooner than Redis brings it. */
  private readonly mark = `${uuid()} `;
  private readonly readers = new Map<string, EventsListener>();
  private onCommand: ((processId: string) => void) | null = null;

  constructor(
    @Inject(REDIS) private readonly redis: Redis,
    @Inject(REDIS_SUBSCRIBER) private readonly subscriber: Redis,
  ) {
    subscriber.on('message', (channel: string, message: string) => this.hear(channel, message));
  }

  /** Tells readers, on this server and on others, what has been committed to a log. */
  publishEvents(processId: string, events: ProcessEvent[]): void {
    this.readers.get(processId)?.(events);
    // A reader of ours writes to its client first.
    setImmediate(() => this.publish(EVENTS + processId, this.mark + JSON.stringify(events)));
  }

  /** Tells workers that one of them should look into the inbox of a process. */
  publishCommand(processId: string): void {
    this.publish(COMMANDS, processId);
  }

  /** @returns once Redis has said that messages will come; never, while Redis is away */
  async subscribeEvents(processId: string, listener: EventsListener): Promise<void> {
    this.readers.set(processId, listener);
    await this.subscriber.subscribe(EVENTS + processId);
  }

  unsubscribeEvents(processId: string): void {
    this.readers.delete(processId);
    this.subscriber.unsubscribe(EVENTS + processId).catch((err: unknown) => this.logger.debug({ err }));
  }

  async subscribeCommands(listener: (processId: string) => void): Promise<void> {
    this.onCommand = listener;
    await this.subscriber.subscribe(COMMANDS);
  }

  // Whatever else publishes on this Redis must not end the server.
  private hear(channel: string, message: string): void {
    try {
      if (channel === COMMANDS) this.onCommand?.(message);
      else if (!message.startsWith(this.mark)) this.hearEvents(channel, message);
    } catch (err) {
      this.logger.warn({ err, channel }, 'A message could not be read.');
    }
  }

  private hearEvents(channel: string, message: string): void {
    const listener = this.readers.get(channel.slice(EVENTS.length));
    listener?.(JSON.parse(message.slice(message.indexOf('['))) as ProcessEvent[]);
  }

  private publish(channel: string, message: string): void {
    this.redis.publish(channel, message).catch((err: unknown) => this.logger.debug({ err, channel }));
  }
}
