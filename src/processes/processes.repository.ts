import { Injectable } from '@nestjs/common';
import type { Process as ProcessRow } from '../generated/prisma/client.js';
import { afterCursor, type KeysetPosition, NEWEST_FIRST } from '../platform/http/keyset-cursor.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { SummaryRow } from './process-view.js';
import type { ProcessStatus } from './processes.schemas.js';

export interface ProcessFilter {
  /** Null: everybody's. */
  userId: string | null;
  status?: ProcessStatus[] | undefined;
  sessionId?: string | undefined;
  createdAfter?: Date | undefined;
  createdBefore?: Date | undefined;
  metadata?: Record<string, string> | undefined;
}

/** Finds processes. */
@Injectable()
export class ProcessesRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** @param userId whose it must be; null for anybody's */
  findOwned(userId: string | null, id: string): Promise<ProcessRow | null> {
    return this.prisma.process.findFirst({ where: { id, ...(userId === null ? {} : { userId }) } });
  }

  list(filter: ProcessFilter, position: KeysetPosition | null, limit: number): Promise<SummaryRow[]> {
    const { userId, status, sessionId, createdAfter, createdBefore, metadata } = filter;
    return this.prisma.process.findMany({
      omit: { prompt: true, result: true, structuredResult: true, filesChanged: true },
      where: {
        AND: [
          userId === null ? {} : { userId },
          status === undefined ? {} : { status: { in: status } },
          sessionId === undefined ? {} : { sessionId },
          createdAfter === undefined ? {} : { createdAt: { gt: createdAfter } },
          createdBefore === undefined ? {} : { createdAt: { lt: createdBefore } },
          ...Object.entries(metadata ?? {}).map(([key, value]) => ({
            metadata: { path: [key], equals: value },
          })),
          afterCursor(position),
        ],
      },
      orderBy: [...NEWEST_FIRST],
      take: limit,
    });
  }
}
