import { Redis } from 'ioredis';
import pg from 'pg';
import { v7 as uuid } from 'uuid';
import { readConfig, requireStores } from '../../src/platform/config/config.js';
import { applyMigrations, findMigrations } from '../../src/platform/prisma/migrations.js';
import { PrismaService } from '../../src/platform/prisma/prisma.service.js';
import {
  type ClaimedProcess,
  ProcessClaimsRepository,
} from '../../src/processes/process-claims.repository.js';
import { ProcessCommandsRepository } from '../../src/processes/process-commands.repository.js';
import { type Concluded, ProcessEndingsRepository } from '../../src/processes/process-endings.repository.js';
import type { ProcessEvent } from '../../src/processes/process-events.schemas.js';
import { ProcessLeasesRepository } from '../../src/processes/process-leases.repository.js';
import { ProcessLogRepository, type Run } from '../../src/processes/process-log.repository.js';
import type { NewProcess } from '../../src/processes/process-row.repository.js';
import { ProcessSubmissionsRepository } from '../../src/processes/process-submissions.repository.js';
import { afterLoss } from '../../src/processes/run-verdict.js';
import { SessionWorkspaces } from '../../src/sessions/session-workspaces.js';
import { SessionsEvents } from '../../src/sessions/sessions.events.js';
import { SessionsRepository } from '../../src/sessions/sessions.repository.js';
import { SessionsService } from '../../src/sessions/sessions.service.js';
import { TranscriptsRepository } from '../../src/sessions/transcripts.repository.js';
import { TranscriptsService } from '../../src/sessions/transcripts.service.js';
import { createStores, type TestStores } from './stores.js';

export const LEASE_MS = 15_000;
export const NO_LIMITS = { maxPending: 1_000_000, maxPendingPerUser: 1_000_000 };

/** The repositories that write processes, on a database of their own, and what tests of them ask for again and again. */
export class WriteSide {
  readonly sessions: SessionsService;
  readonly submissions: ProcessSubmissionsRepository;
  readonly claims: ProcessClaimsRepository;
  readonly leases: ProcessLeasesRepository;
  readonly log: ProcessLogRepository;
  readonly endings: ProcessEndingsRepository;
  readonly commands: ProcessCommandsRepository;
  private readonly redis: Redis;

  private constructor(
    readonly stores: TestStores,
    readonly prisma: PrismaService,
    readonly userId: string,
  ) {
    this.redis = new Redis(stores.redisUrl, { lazyConnect: true });
    const transcripts = new TranscriptsService(new TranscriptsRepository(prisma));
    this.sessions = new SessionsService(
      new SessionsRepository(prisma),
      transcripts,
      new SessionWorkspaces(configOf(stores, stores.databaseUrl)),
      new SessionsEvents(this.redis, this.redis),
    );
    this.submissions = new ProcessSubmissionsRepository(prisma, this.sessions);
    this.claims = new ProcessClaimsRepository(prisma);
    this.leases = new ProcessLeasesRepository(prisma);
    this.log = new ProcessLogRepository(prisma);
    this.endings = new ProcessEndingsRepository(prisma);
    this.commands = new ProcessCommandsRepository(prisma);
  }

  static async open(): Promise<WriteSide> {
    const stores = await createStores();
    await applyMigrations(stores.databaseUrl, findMigrations());
    const prisma = connect(stores, stores.databaseUrl);
    const { id } = await prisma.user.create({
      data: { id: uuid(), email: 'someone@example.com', passwordHash: '' },
    });
    return new WriteSide(stores, prisma, id);
  }

  /** Another server's repositories, which reach the same database by another way. */
  by(databaseUrl: string): WriteSide {
    return new WriteSide(this.stores, connect(this.stores, databaseUrl), this.userId);
  }

  /** @returns the id of a further user */
  async addUser(): Promise<string> {
    const id = uuid();
    await this.prisma.user.create({ data: { id, email: `${id}@example.com`, passwordHash: '' } });
    return id;
  }

  /** Forgets every process. */
  async clear(): Promise<void> {
    await this.stores.query('TRUNCATE sessions CASCADE');
  }

  async close(): Promise<void> {
    this.redis.disconnect();
    await this.prisma.$disconnect();
    await this.stores.drop();
  }

  newProcess(options: Partial<NewProcess> = {}): NewProcess {
    return {
      id: uuid(),
      userId: this.userId,
      session: { kind: 'new', id: uuid() },
      prompt: 'Do it',
      promptPreview: 'Do it',
      request: {},
      metadata: {},
      priority: 5,
      maxAttempts: 1,
      retryOn: [],
      queueTimeoutMs: null,
      demo: false,
      ...options,
    };
  }

  /** @returns the id of a process that waits */
  async submit(options: Partial<NewProcess> = {}): Promise<string> {
    const process = this.newProcess(options);
    await this.submissions.submit({ process, named: null, limits: NO_LIMITS });
    return process.id;
  }

  /** Claims the next process. @throws where none may run */
  async claim(owner = 'worker'): Promise<ClaimedProcess> {
    const claimed = await this.claims.claim(owner, LEASE_MS);
    if (!claimed) throw new Error('Nothing may run.');
    return claimed;
  }

  /** A process that runs; the only one that waited. */
  async run(options: Partial<NewProcess> = {}): Promise<Run & { lastSeq: number }> {
    await this.submit(options);
    const { id: processId, fence, lastSeq } = await this.claim();
    return { processId, fence, lastSeq };
  }

  /** As `run`, and its CLI has started. */
  async startedRun(options: Partial<NewProcess> = {}): Promise<Run & { lastSeq: number }> {
    const run = await this.run(options);
    await this.log.append([{ run, lastSeq: run.lastSeq, ...STARTED }]);
    return { ...run, lastSeq: run.lastSeq + 1 };
  }

  /** Lets the lease of a process end now. */
  expire(processId: string): Promise<void> {
    return this.letPass('lease_until', processId);
  }

  /** What the reconciler does with a run whose worker is gone. */
  async reconcile(run: Run): Promise<Concluded | null> {
    await this.expire(run.processId);
    return this.endings.takeOver(run, afterLoss);
  }

  /** Lets the time come until which a process waits before it runs again, if it does. */
  async endRetryPause(processId: string): Promise<void> {
    const { retryAt } = await this.find(processId);
    if (retryAt) await this.letPass('retry_at', processId);
  }

  /** Lets a process that waits before it runs again wait for longer than a test on a busy machine takes. */
  async prolongRetryPause(processId: string): Promise<void> {
    await this.stores.query(`UPDATE processes SET retry_at = retry_at + interval '1 hour' WHERE id = $1`, [
      processId,
    ]);
  }

  /** Lets the time be over in which a process wants to start. */
  passQueueDeadline(processId: string): Promise<void> {
    return this.letPass('queue_deadline', processId);
  }

  // Times are kept in whole milliseconds: that of now may be rounded to one that is still to come.
  private async letPass(column: string, processId: string): Promise<void> {
    await this.stores.query(`UPDATE processes SET ${column} = now() - interval '1 ms' WHERE id = $1`, [
      processId,
    ]);
  }

  /**
   * Lets writes of one process come at the same time, and get its row in this order: all wait for its lock when it is given
   * free. (Claims do not wait for locks.)
   */
  async together<Results extends unknown[]>(
    processId: string,
    ...writes: { [Index in keyof Results]: () => Promise<Results[Index]> }
  ): Promise<Results> {
    const holder = new pg.Client({ connectionString: this.stores.databaseUrl });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('SELECT 1 FROM processes WHERE id = $1 FOR UPDATE', [processId]);
    const results: Promise<unknown>[] = [];
    for (const write of writes) {
      results.push(write());
      await this.untilWaitingForLocks(results.length);
    }
    await holder.query('COMMIT');
    await holder.end();
    return (await Promise.all(results)) as Results;
  }

  /** Resolves when so many statements wait for a lock. */
  async untilWaitingForLocks(count: number): Promise<void> {
    for (let waiting = -1; waiting < count;) {
      const rows = await this.stores.query<{ waiting: number }>(
        `SELECT count(*)::int AS waiting FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      waiting = rows[0]?.waiting ?? 0;
    }
  }

  find(id: string) {
    return this.prisma.process.findUniqueOrThrow({ where: { id } });
  }

  events(id: string): Promise<ProcessEvent[]> {
    return this.log.read(id, 0, { limit: 100_000, maxBytes: Number.MAX_SAFE_INTEGER });
  }

  async eventTypes(id: string): Promise<string[]> {
    return (await this.events(id)).map(({ type }) => type);
  }
}

const FACTS = {
  engine: 'cli',
  model: 'a-model',
  cliVersion: '2.1.0',
  cliSessionId: 'its-own-id',
  demo: false,
};

/** What the start of a CLI writes. */
export const STARTED = {
  events: [{ type: 'started' as const, engine: FACTS.engine, model: FACTS.model, attempt: 1 }],
  facts: { started: FACTS },
};

const configOf = ({ redisUrl: REDIS_URL }: TestStores, DATABASE_URL: string) =>
  requireStores(readConfig({ DATABASE_URL, REDIS_URL }));

const connect = (stores: TestStores, databaseUrl: string) => new PrismaService(configOf(stores, databaseUrl));
