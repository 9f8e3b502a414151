import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { startEmbeddedPostgres, startEmbeddedRedis } from '../dist/libs/embedded-services/index.js';
import { readConfig, requireStores } from '../dist/src/platform/config/config.js';
import { applyMigrations, findMigrations } from '../dist/src/platform/prisma/migrations.js';
import { PrismaService } from '../dist/src/platform/prisma/prisma.service.js';
import { EventAppender } from '../dist/src/processes/event-appender.js';
import { ProcessChannel } from '../dist/src/processes/process-channel.js';
import { ProcessEndingsRepository } from '../dist/src/processes/process-endings.repository.js';
import { ProcessLogRepository } from '../dist/src/processes/process-log.repository.js';

const LEASE_MS = 3_600_000;

/** The writing part of a worker, without an engine, on stores of its own. */
export async function openWorker(directory) {
  const redisCache = new URL('../.cache/distribution', import.meta.url).pathname;
  const postgres = await startEmbeddedPostgres({ directory: join(directory, 'postgres') });
  const redis = await startEmbeddedRedis({ directory: join(directory, 'redis'), cacheDirectory: redisCache });
  const config = requireStores(readConfig({ DATABASE_URL: postgres.url, REDIS_URL: redis.url }));
  await applyMigrations(config.DATABASE_URL, findMigrations());
  const prisma = new PrismaService(config);
  const connections = [new Redis(config.REDIS_URL), new Redis(config.REDIS_URL)];
  const appender = new EventAppender(
    new ProcessLogRepository(prisma),
    new ProcessEndingsRepository(prisma),
    new ProcessChannel(...connections),
  );
  const { id: userId } = await prisma.user.create({
    data: { id: randomUUID(), email: 'bench@example.com', passwordHash: '' },
  });

  return {
    /** New processes that run, each with its log. */
    async startRuns(count) {
      const runs = [];
      for (let n = 0; n < count; n += 1) {
        const { id: processId, fence, lastSeq } = await createRunning(prisma, userId);
        const onLost = () => {
          throw new Error('The run was lost.');
        };
        const log = appender.open({ processId, fence, lastSeq }, { onLost, onCancelRequested: onLost });
        runs.push({ processId, lastSeq, log });
      }
      return runs;
    },
    async createOne(processId, seq, payload) {
      const bytes = JSON.stringify(payload).length;
      await prisma.processEvent.createMany({
        data: [{ processId, seq, type: payload.type, payload, bytes }],
      });
    },
    async close() {
      for (const connection of connections) connection.disconnect();
      await prisma.$disconnect();
      await redis.stop();
      await postgres.stop();
    },
  };
}

async function createRunning(prisma, userId) {
  const id = randomUUID();
  await prisma.session.create({ data: { id, userId, workspaceKey: id } });
  return prisma.process.create({
    data: {
      id,
      userId,
      sessionId: id,
      status: 'running',
      fence: 1,
      owner: 'bench',
      leaseUntil: new Date(Date.now() + LEASE_MS),
      hasStarted: true,
      fairRank: 0,
      prompt: 'Bench',
      promptPreview: 'Bench',
      request: {},
      metadata: {},
    },
  });
}
