import { Injectable } from '@nestjs/common';
import { Prisma } from '../generated/prisma/client.js';
import { UrgentPrismaService } from '../platform/prisma/prisma.service.js';
import type { Run } from './process-log.repository.js';

export interface RenewedLease extends Run {
  cancelRequested: boolean;
}

/** How long a worker holds its processes. */
@Injectable()
export class ProcessLeasesRepository {
  constructor(private readonly prisma: UrgentPrismaService) {}

  /** Prolongs the leases of a worker. What is not in the answer is no longer its own. */
  renew(owner: string, runs: Run[], leaseMs: number): Promise<RenewedLease[]> {
    return this.prisma.$queryRaw`
      WITH mine AS MATERIALIZED (
        SELECT id FROM processes
        WHERE id = ANY(${runs.map(({ processId }) => processId)}::uuid[]) AND owner = ${owner} AND status = 'running'
        ORDER BY id FOR UPDATE
      )
      UPDATE processes SET lease_until = ${leaseEnd(leaseMs)} FROM mine WHERE processes.id = mine.id
      RETURNING processes.id AS "processId", processes.fence,
        processes.cancel_requested_at IS NOT NULL AS "cancelRequested"`;
  }
}

/** Reckoned by the database's clock, which all servers share. */
export const leaseEnd = (leaseMs: number) => Prisma.sql`now() + ${leaseMs} * interval '1 ms'`;
