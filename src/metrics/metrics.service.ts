import { Injectable } from '@nestjs/common';
import type { Caller } from '../platform/access/caller.js';
import { AppError } from '../platform/errors/app-error.js';
import { OperationsService, type WorkerStatus } from '../processes/operations.service.js';
import type { Metrics, MetricsQuery } from './metrics.schemas.js';

const MINUTE_MS = 60_000;
const WINDOWS_MS = { '5m': 5 * MINUTE_MS, '1h': 60 * MINUTE_MS, '24h': 24 * 60 * MINUTE_MS };

type Capacity = Pick<Metrics, 'workers' | 'slots' | 'spares' | 'keptSessions'>;
const UNKNOWN: Capacity = { workers: null, slots: null, spares: null, keptSessions: null };

@Injectable()
export class MetricsService {
  constructor(private readonly operations: OperationsService) {}

  async read(caller: Caller, { window, scope }: MetricsQuery): Promise<Metrics> {
    if (scope === 'all' && !caller.isAdministrator)
      throw new AppError('forbidden', 'Only administrators read the figures of everybody.');
    const windowMs = WINDOWS_MS[window];
    const statistics = await this.operations.statisticsSince(
      scope === 'all' ? null : caller.userId,
      windowMs,
    );
    const { completed, failed } = statistics.counts;
    return {
      scope,
      window,
      since: new Date(Date.now() - windowMs).toISOString(),
      ...statistics,
      successRate: completed + failed === 0 ? null : completed / (completed + failed),
      ...(scope === 'all' ? await this.capacity() : UNKNOWN),
    };
  }

  private async capacity(): Promise<Capacity> {
    const workers = await this.operations.workers();
    if (!workers) return UNKNOWN;
    const sum = (field: 'slots' | 'busySlots') => workers.reduce((total, worker) => total + worker[field], 0);
    return {
      workers: workers.length,
      slots: { total: sum('slots'), busy: sum('busySlots') },
      spares: together(workers.map(({ engine }) => engine.spares)),
      keptSessions: together(workers.map(({ engine }) => engine.keptSessions)),
    };
  }
}

type Supply = WorkerStatus['engine']['spares'];

function together(supplies: Supply[]): Supply {
  const sum = (field: Exclude<keyof Supply, 'oldestMs'>) =>
    supplies.reduce((total, supply) => total + supply[field], 0);
  const ages = supplies.flatMap(({ oldestMs }) => oldestMs ?? []);
  return {
    count: sum('count'),
    hits: sum('hits'),
    misses: sum('misses'),
    evictions: sum('evictions'),
    oldestMs: ages.length === 0 ? null : Math.max(...ages),
  };
}
