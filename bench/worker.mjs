import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { startEmbeddedPostgres, startEmbeddedRedis } from '../dist/libs/embedded-services/index.js';
import { readConfig, requireStores } from '../dist/src/platform/config/config.js';
import { applyMigrations, findMigrations } from '../dist/src/platform/prisma/migrations.js';
import { PrismaService } from '../dist/src/platform/prisma/prisma.service.js';
import { EventAppender } from '../dist/src/processes/event-appender.js';
import { ProcessChannel } from '../dist/src/processes/process-channel.js';
import { ProcessClaimsRepository } from '../dist/src/processes/process-claims.repository.js';
import { ProcessEndingsRepository } from '../dist/src/processes/process-endings.repository.js';
import { ProcessLogRepository } from '../dist/src/processes/process-log.repository.js';
import { ProcessSubmissionsRepository } from '../dist/src/processes/process-submissions.repository.js';

const LEASE_MS = 3_600_000;
const LIMITS = { maxPending: 1_000, maxPendingPerUser: 1_000 };

/** The writing part of a worker, without an engine, on stores of its own. */
export async function openWorker(directory) {
  const redisCache = new URL('../.cache/distribution', import.meta.url).pathname;
  const postgres = await startEmbeddedPostgres({ directory: join(directory, 'postgres') });
  const redis = await startEmbeddedRedis({ directory: join(directory, 'redis'), cacheDirectory: redisCache });
  const config = requireStores(readConfig({ DATABASE_URL: postgres.url, REDIS_URL: redis.url }));
  await applyMigrations(config.DATABASE_URL, findMigrations());
  const prisma = new PrismaService(config);
  const connections = [new Redis(config.REDIS_URL), new Redis(config.REDIS_URL)];
  const submissions = new ProcessSubmissionsRepository(prisma);
  const claims = new ProcessClaimsRepository(prisma);
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
    async claimRuns(count) {
      const runs = [];
      for (let n = 0; n < count; n += 1) {
        await submissions.submit({ process: newProcess(userId), named: null, limits: LIMITS });
        const { id: processId, fence, lastSeq } = await claims.claim('bench', LEASE_MS);
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

const newProcess = (userId) => ({
  id: randomUUID(),
  userId,
  sessionId: randomUUID(),
  prompt: 'Bench',
  promptPreview: 'Bench',
  request: {},
  metadata: {},
  priority: 5,
  maxAttempts: 1,
  retryOn: [],
  queueTimeoutMs: null,
  demo: false,
});
