import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import type { Redis } from 'ioredis';
import type { Caller } from '../platform/access/caller.js';
import { REDIS, REDIS_SUBSCRIBER } from '../platform/redis/redis.module.js';
import { CredentialsRepository } from './credentials.repository.js';

const CHANNEL = 'claude-runner:revocations';
/** How long a connection may outlive its credentials where Redis lost the message, or nobody sent one. */
const BACKSTOP_MS = 10_000;
/** Of `setTimeout`. */
const MAX_TIMER_MS = 2 ** 31 - 1;

interface Held {
  caller: Caller;
  end: () => void;
}

/** The credentials behind the sockets and event streams that are open on this server. What they opened ends with them. */
@Injectable()
export class OpenCredentials implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly logger = new Logger(OpenCredentials.name);
  private readonly held = new Set<Held>();
  private backstop: NodeJS.Timeout | null = null;

  constructor(
    private readonly credentials: CredentialsRepository,
    @Inject(REDIS) private readonly redis: Redis,
    @Inject(REDIS_SUBSCRIBER) private readonly subscriber: Redis,
  ) {}

  onApplicationBootstrap(): void {
    this.subscriber.on('message', (channel: string) => {
      if (channel === CHANNEL) void this.look();
    });
    this.subscriber.subscribe(CHANNEL).catch((err: unknown) => this.logger.debug({ err }));
  }

  onApplicationShutdown(): void {
    if (this.backstop) clearInterval(this.backstop);
    this.backstop = null;
  }

  /** Calls `end` once the credentials have expired, were revoked or have lost their account. @returns how to let go */
  hold(caller: Caller, end: () => void): () => void {
    const held: Held = { caller, end };
    const expiry = atExpiry(caller, end);
    this.held.add(held);
    this.backstop ??= setInterval(() => void this.look(), BACKSTOP_MS);
    return () => {
      clearTimeout(expiry);
      this.held.delete(held);
      if (this.held.size === 0) this.onApplicationShutdown();
    };
  }

  /** Something was revoked: every server, or this one while Redis is away, looks at once whether it holds that. */
  lookEverywhere(): void {
    this.redis.publish(CHANNEL, '').catch(() => this.look());
  }

  private async look(): Promise<void> {
    const asked = [...this.held];
    if (asked.length === 0) return;
    try {
      const usable = await this.credentials.findUsable(asked.map(({ caller }) => caller));
      for (const { caller, end } of asked) if (!usable.has(caller.apiKeyId ?? caller.userId)) end();
    } catch (err) {
      this.logger.warn({ err }, 'The credentials of open connections could not be looked up.');
    }
  }
}

/** What is too far off for a timer is found when it is looked up. */
function atExpiry({ expiresAt }: Caller, end: () => void): NodeJS.Timeout | undefined {
  const remainingMs = (expiresAt ?? Infinity) - Date.now();
  return remainingMs > MAX_TIMER_MS ? undefined : setTimeout(end, Math.max(remainingMs, 0));
}
