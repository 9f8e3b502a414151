import { Inject, Injectable } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { AppError } from '../errors/app-error.js';
import { PrismaService } from '../prisma/prisma.service.js';
import { REDIS } from '../redis/redis.module.js';
import { orLate } from '../timing/or-late.js';
import { Lifecycle } from './lifecycle.js';

const PING_TIMEOUT_MS = 2_000;

export type StoreStatus = 'ok' | 'down';

/** Whether the stores answer, and whether this server takes requests. */
@Injectable()
export class HealthService {
  constructor(
    private readonly prisma: PrismaService,
    @Inject(REDIS) private readonly redis: Redis,
    private readonly lifecycle: Lifecycle,
  ) {}

  async stores(): Promise<{ database: StoreStatus; redis: StoreStatus }> {
    const [database, redis] = await Promise.all([answers(this.prisma.ping()), answers(this.redis.ping())]);
    return { database, redis };
  }

  /** @throws AppError when the server is shutting down or a store is away */
  async requireReady(): Promise<{ status: 'ok' }> {
    this.lifecycle.requireOpen();
    const { database, redis } = await this.stores();
    if (database === 'ok' && redis === 'ok') return { status: 'ok' };
    const away = [database === 'down' && 'the database', redis === 'down' && 'Redis']
      .filter(Boolean)
      .join(' and ');
    throw new AppError('unavailable', `No answer from ${away}.`);
  }
}

async function answers(ping: Promise<unknown>): Promise<StoreStatus> {
  const answered = ping.then(
    () => true,
    () => false,
  );
  return (await orLate(answered, PING_TIMEOUT_MS)) === true ? 'ok' : 'down';
}
