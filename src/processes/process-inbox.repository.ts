import { isDeepStrictEqual } from 'node:util';
import { Injectable } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import type { Prisma } from '../generated/prisma/client.js';
import type { StatementClient } from '../platform/prisma/direct-statements.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { PermissionAnswerRequest } from './process-inbox.schemas.js';
import type { ProcessStatus } from './processes.schemas.js';

interface LockedProcess {
  id: string;
  status: ProcessStatus;
  isCancelRequested: boolean;
  isInboxClosed: boolean;
}

export interface NotRunning {
  kind: 'unknown_process' | 'not_started' | 'ended' | 'being_cancelled';
}

export type MessageTaken = { kind: 'taken' } | { kind: 'full' } | NotRunning;

export type AnswerTaken =
  | { kind: 'taken' | 'taken_before' }
  | { kind: 'unknown_permission' | 'answered' | 'expired' | 'withdrawn' }
  | NotRunning;

/** Puts into the inboxes of running processes what their owners want of them. Each is one transaction under the lock of the row. */
@Injectable()
export class ProcessInboxRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Answers an open question; of several answers the first counts, and the same by the same user again is no other. */
  async answer(
    { userId, processId, permissionId }: { userId: string; processId: string; permissionId: string },
    answer: PermissionAnswerRequest,
  ): Promise<AnswerTaken> {
    return this.prisma.$transaction(async (transaction) => {
      const locked = await lock(transaction, userId, processId);
      if (!locked) return { kind: 'unknown_process' };
      const payload = JSON.parse(JSON.stringify(answer)) as Prisma.InputJsonObject;
      const decided = await transaction.processCommand.findUnique({
        where: { processId_permissionId: { processId, permissionId } },
      });
      if (decided?.userId === userId && isDeepStrictEqual(decided.payload, payload))
        return { kind: 'taken_before' };
      if (decided?.userId) return { kind: 'answered' };
      if (decided) return { kind: reasonOf(decided.payload) };
      const notRunning = whyNotRunning(locked);
      if (notRunning && notRunning.kind !== 'being_cancelled') return notRunning;
      const question = await findQuestion(transaction, processId, permissionId);
      if (!question) return { kind: 'unknown_permission' };
      if (question.isResolved || notRunning) return { kind: 'withdrawn' };
      await transaction.processCommand.create({
        data: { id: uuid(), processId, kind: 'permission', payload, userId, permissionId },
      });
      return { kind: 'taken' };
    });
  }

  /** Adds a message to those that the run has not read yet, as far as there may be so many. */
  async say(
    { userId, processId }: { userId: string; processId: string },
    text: string,
    limits: { maxMessages: number; maxBytes: number },
  ): Promise<MessageTaken> {
    return this.prisma.$transaction(async (transaction) => {
      const locked = await lock(transaction, userId, processId);
      const refusal = whyNotSteered(locked);
      if (refusal) return refusal;
      const [waiting] = await transaction.$queryRaw<{ messages: number; bytes: number }[]>`
        SELECT count(*)::int AS messages, coalesce(sum(octet_length(payload->>'text')), 0)::int AS bytes
        FROM process_commands
        WHERE process_id = ${processId}::uuid AND kind = 'message' AND handled_at IS NULL`;
      const { messages = 0, bytes = 0 } = waiting ?? {};
      if (messages >= limits.maxMessages || bytes + Buffer.byteLength(text) > limits.maxBytes)
        return { kind: 'full' };
      await transaction.process.update({
        where: { id: processId },
        data: { messageCount: { increment: 1 } },
      });
      const data = { id: uuid(), processId, kind: 'message', payload: { text }, userId };
      await transaction.processCommand.create({ data });
      return { kind: 'taken' };
    });
  }

  /** Wants the turn to be stopped; a wish that is not fulfilled yet is not made twice. */
  async interrupt({
    userId,
    processId,
  }: {
    userId: string;
    processId: string;
  }): Promise<{ kind: 'taken' } | NotRunning> {
    return this.prisma.$transaction(async (transaction) => {
      const locked = await lock(transaction, userId, processId);
      const refusal = whyNotSteered(locked);
      if (refusal) return refusal;
      const wish = { processId, kind: 'interrupt' };
      const waiting = await transaction.processCommand.count({ where: { ...wish, handledAt: null } });
      if (waiting === 0) await transaction.processCommand.create({ data: { id: uuid(), ...wish, userId } });
      return { kind: 'taken' };
    });
  }
}

async function lock(
  transaction: Prisma.TransactionClient,
  userId: string,
  processId: string,
): Promise<LockedProcess | null> {
  const [locked] = await transaction.$queryRaw<LockedProcess[]>`
    SELECT id, status::text, cancel_requested_at IS NOT NULL AS "isCancelRequested",
      inbox_closed AS "isInboxClosed"
    FROM processes WHERE id = ${processId}::uuid AND user_id = ${userId}::uuid FOR UPDATE`;
  return locked ?? null;
}

function whyNotRunning({ status, isCancelRequested }: LockedProcess): NotRunning | null {
  if (status === 'pending') return { kind: 'not_started' };
  if (status !== 'running') return { kind: 'ended' };
  return isCancelRequested ? { kind: 'being_cancelled' } : null;
}

function whyNotSteered(locked: LockedProcess | null): NotRunning | null {
  if (!locked) return { kind: 'unknown_process' };
  return whyNotRunning(locked) ?? (locked.isInboxClosed ? { kind: 'ended' } : null);
}

const reasonOf = (payload: Prisma.JsonValue) =>
  (payload as { reason?: string }).reason === 'expired' ? 'expired' : 'withdrawn';

async function findQuestion(
  transaction: Prisma.TransactionClient,
  processId: string,
  permissionId: string,
): Promise<{ isResolved: boolean } | null> {
  const types = await transaction.$queryRaw<{ type: string }[]>`
    SELECT type FROM process_events
    WHERE process_id = ${processId}::uuid AND type IN ('permission_requested', 'permission_resolved')
      AND payload->>'permissionId' = ${permissionId}`;
  if (types.length === 0) return null;
  return { isResolved: types.some(({ type }) => type === 'permission_resolved') };
}

/** The questions of a process that its log leaves open, in the order in which they were asked. */
export async function findOpenQuestions(client: StatementClient, processId: string): Promise<string[]> {
  const rows = await client.$queryRaw<{ id: string }[]>`
    SELECT asked.payload->>'permissionId' AS id FROM process_events asked
    WHERE asked.process_id = ${processId}::uuid AND asked.type = 'permission_requested' AND NOT EXISTS (
      SELECT 1 FROM process_events resolved
      WHERE resolved.process_id = ${processId}::uuid AND resolved.type = 'permission_resolved'
        AND resolved.payload->>'permissionId' = asked.payload->>'permissionId')
    ORDER BY asked.seq`;
  return rows.map(({ id }) => id);
}
