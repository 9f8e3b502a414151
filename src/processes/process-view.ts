import type { Process as ProcessRow } from '../generated/prisma/client.js';
import type { Process, ProcessSummary } from './processes.schemas.js';

const ROUTE = '/api/v1/claude/processes';

/** A row as callers see it. */
export function toProcess(row: ProcessRow, queuePosition: number | null): Process {
  return {
    ...toFields(row, queuePosition),
    prompt: row.contentDeletedAt ? null : row.prompt,
    result: row.result,
    structuredResult: row.structuredResult,
    filesChanged: row.filesChanged as Process['filesChanged'],
  };
}

export type SummaryRow = Omit<ProcessRow, 'prompt' | 'result' | 'structuredResult' | 'filesChanged'>;

export function toSummary(row: SummaryRow, queuePosition: number | null): ProcessSummary {
  return { ...toFields(row, queuePosition), promptPreview: row.promptPreview };
}

function toFields(row: SummaryRow, queuePosition: number | null) {
  return {
    id: row.id,
    status: row.status,
    // What stands in these columns was written through the schemas of the same names.
    stopReason: row.stopReason as Process['stopReason'],
    error: row.error as Process['error'],
    model: row.model,
    engine: row.engine,
    demo: row.demo,
    sessionId: row.sessionId,
    attempt: row.attempt,
    priority: row.priority,
    queuePosition: row.status === 'pending' ? queuePosition : null,
    usage: row.usage as Process['usage'],
    costUsd: row.costUsd,
    numTurns: row.numTurns,
    permissionDenials: row.permissionDenials as Process['permissionDenials'],
    metadata: row.metadata as Process['metadata'],
    createdAt: row.createdAt.toISOString(),
    startedAt: row.startedAt?.toISOString() ?? null,
    finishedAt: row.finishedAt?.toISOString() ?? null,
    cancelRequestedAt: row.cancelRequestedAt?.toISOString() ?? null,
    retryAt: row.status === 'pending' ? (row.retryAt?.toISOString() ?? null) : null,
    contentDeletedAt: row.contentDeletedAt?.toISOString() ?? null,
    queueWaitMs: between(row.createdAt, row.startedAt),
    timeToFirstTokenMs: between(row.createdAt, row.firstTokenAt),
    durationMs: between(row.startedAt, row.finishedAt),
    firstSeq: row.firstSeq,
    lastSeq: row.lastSeq,
    cliVersion: row.cliVersion,
    links: linksOf(row.id),
  };
}

const between = (from: Date | null, to: Date | null) => (from && to ? to.getTime() - from.getTime() : null);

function linksOf(id: string): Process['links'] {
  const self = `${ROUTE}/${id}`;
  return { self, events: `${self}/events`, stream: `${self}/events/stream`, cancel: `${self}/cancel` };
}
