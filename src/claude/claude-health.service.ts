import { Injectable } from '@nestjs/common';
import type { Caller } from '../platform/access/caller.js';
import { HealthService } from '../platform/health/health.service.js';
import { OperationsService, type WorkerStatus } from '../processes/operations.service.js';
import type { Health } from './claude.schemas.js';

/** The health of the whole service, as far as this server sees it. */
@Injectable()
export class ClaudeHealthService {
  constructor(
    private readonly health: HealthService,
    private readonly operations: OperationsService,
  ) {}

  async read(caller: Caller | null): Promise<Health> {
    const { database, redis } = await this.health.stores();
    const workers = redis === 'ok' ? await this.operations.workers() : null;
    const queueDepth = database === 'ok' ? await this.operations.queueDepth() : null;
    const queuePaused = redis === 'ok' ? await this.operations.isQueuePaused() : null;
    const problems = problemsOf({ database, redis, workers, queuePaused });
    const status = database === 'down' ? 'down' : problems.length > 0 ? 'degraded' : 'ok';
    if (!caller) return { status, parts: null };
    return {
      status,
      parts: {
        database,
        redis,
        queueDepth,
        queuePaused,
        problems,
        ...partsOf(workers, caller.isAdministrator),
      },
    };
  }
}

function problemsOf({
  database,
  redis,
  workers,
  queuePaused,
}: {
  database: string;
  redis: string;
  workers: WorkerStatus[] | null;
  queuePaused: boolean | null;
}) {
  const problems: string[] = [];
  if (database === 'down') problems.push('PostgreSQL does not answer.');
  if (redis === 'down') problems.push('Redis does not answer.');
  if (workers?.length === 0) problems.push('There is no worker.');
  if (workers?.some(({ engine }) => !engine.isAvailable))
    problems.push('A worker has no Claude CLI that runs: the Messages API answers what needs no tools.');
  if (workers?.some(({ engine }) => engine.breaker !== 'closed'))
    problems.push('The Messages API fails: a worker begins nothing until it answers.');
  if (queuePaused) problems.push('The queue is paused.');
  return problems;
}

/** The half-open ones are about to try. */
function worstOf(workers: WorkerStatus[]): WorkerStatus['engine']['breaker'] {
  const states = new Set(workers.map(({ engine }) => engine.breaker));
  if (states.has('open')) return 'open';
  return states.has('half_open') ? 'half_open' : 'closed';
}

/** What the workers tell; what nobody tells, while Redis is away, is null. */
function partsOf(workers: WorkerStatus[] | null, isAdministrator: boolean) {
  if (!workers)
    return {
      workers: null,
      slots: null,
      cliVersions: null,
      containment: null,
      apiFallback: null,
      upstream: null,
      demo: null,
      cliPaths: null,
    };
  const sum = (field: 'slots' | 'busySlots') => workers.reduce((total, worker) => total + worker[field], 0);
  const distinct = (values: (string | null)[]) => [...new Set(values)].filter((value) => value !== null);
  return {
    workers: workers.length,
    slots: { total: sum('slots'), busy: sum('busySlots') },
    cliVersions: distinct(workers.map(({ engine }) => engine.version)),
    containment: distinct(workers.map(({ engine }) => engine.containment)),
    apiFallback: workers.some(({ engine }) => !engine.isAvailable && engine.hasFallback),
    upstream: worstOf(workers),
    demo: workers.some(({ demo }) => demo),
    cliPaths: isAdministrator ? distinct(workers.map(({ engine }) => engine.path)) : null,
  };
}
