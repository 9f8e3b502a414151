import { Prisma, type Process as ProcessRow } from '../generated/prisma/client.js';
import type { SessionChoice } from '../sessions/sessions.service.js';

export interface NewProcess {
  id: string;
  userId: string;
  session: SessionChoice;
  prompt: string;
  promptPreview: string;
  request: Prisma.InputJsonObject;
  metadata: Prisma.InputJsonObject;
  priority: number;
  maxAttempts: number;
  retryOn: string[];
  /** Null: it waits for its start as long as it takes. */
  queueTimeoutMs: number | null;
  demo: boolean;
}

const columnOf = (field: string) => field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** What a statement of our own answers, or returns, so that it is a `ProcessRow`. */
export const ROW = Prisma.raw(
  Object.values(Prisma.ProcessScalarFieldEnum)
    .map((field) => `processes.${columnOf(field)} AS "${field}"`)
    .join(', '),
);

/** A process as it is when it has just been taken in: what the first entry of its log shows is known before it is written. */
export function newRow(
  { session, queueTimeoutMs, ...process }: NewProcess,
  { fairRank, createdAt }: { fairRank: bigint; createdAt: Date },
): ProcessRow {
  return {
    ...process,
    request: process.request as Prisma.JsonObject,
    metadata: process.metadata as Prisma.JsonObject,
    sessionId: session.id,
    status: 'pending',
    fairRank,
    createdAt,
    queueDeadline: queueTimeoutMs === null ? null : new Date(createdAt.getTime() + queueTimeoutMs),
    lastSeq: 2,
    attempt: 1,
    firstSeq: 1,
    crashCount: 0,
    lossCount: 0,
    fence: 0,
    messageCount: 0,
    hasStarted: false,
    inboxClosed: false,
    permissionDenials: [],
    retryAt: null,
    owner: null,
    leaseUntil: null,
    cancelRequestedAt: null,
    engine: null,
    model: null,
    cliVersion: null,
    result: null,
    structuredResult: null,
    stopReason: null,
    error: null,
    usage: null,
    costUsd: null,
    numTurns: null,
    filesChanged: null,
    startedAt: null,
    firstTokenAt: null,
    finishedAt: null,
    contentDeletedAt: null,
    eventsPrunedAt: null,
  };
}
