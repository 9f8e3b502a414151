import { Injectable } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { decisionIn, type PermissionDecision } from './permission-decision.js';
import type { Run } from './process-log.repository.js';

/** What somebody wants of a running process. */
export interface ProcessCommand {
  id: string;
  processId: string;
  kind: string;
  payload: unknown;
  /** Null: it is the server's own. */
  userId: string | null;
  permissionId: string | null;
}

/** A further message of the owner. */
export interface SentMessage {
  id: string;
  text: string;
  /** A run has read it. */
  isMarked: boolean;
}

/**
 * The inboxes of running processes, on the worker's side. Rows first: the message that hints at them may get lost. What lies
 * there is read, delivered and then marked, so it may be delivered twice, but not be lost.
 */
@Injectable()
export class ProcessCommandsRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** What lies in the inboxes of runs that are this worker's, each in the order in which it was filled. */
  read(owner: string, runs: Run[]): Promise<ProcessCommand[]> {
    return this.prisma.$queryRaw`
      SELECT command.id, command.process_id AS "processId", command.kind, command.payload,
        command.user_id AS "userId", command.permission_id AS "permissionId"
      FROM json_to_recordset(${toJson(runs)}::json) AS run(id uuid, fence int)
      JOIN processes process ON process.id = run.id AND process.fence = run.fence
      JOIN process_commands command ON command.process_id = run.id AND command.handled_at IS NULL
      WHERE process.owner = ${owner} AND process.status = 'running'
      ORDER BY command.created_at, command.id`;
  }

  /** What has been delivered need not be read again. Does nothing for a run that is no longer the caller's. */
  async mark(run: Run, ids: string[]): Promise<void> {
    if (ids.length === 0) return;
    await this.prisma.$executeRaw`
      UPDATE process_commands command SET handled_at = now() FROM processes process
      WHERE command.id = ANY(${ids}::uuid[]) AND command.process_id = ${run.processId}::uuid
        AND command.handled_at IS NULL
        AND process.id = command.process_id AND process.fence = ${run.fence} AND process.status = 'running'`;
  }

  /** The messages that a process was sent, those that an earlier run has read included, in order. */
  async messagesOf({ processId }: Run): Promise<SentMessage[]> {
    const rows = await this.prisma.processCommand.findMany({
      where: { processId, kind: 'message' },
      orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
      select: { id: true, payload: true, handledAt: true },
    });
    return rows.map(({ id, payload, handledAt }) => ({
      id,
      text: (payload as { text: string }).text,
      isMarked: handledAt !== null,
    }));
  }

  /**
   * Lets nobody send any more messages, unless somebody has: the run has read so many, and answered them all.
   * @returns whether it is so; also where the run is no longer the caller's
   */
  async close({ processId, fence }: Run, messageCount: number): Promise<boolean> {
    const rows = await this.prisma.direct.$queryRaw<{ isClosed: boolean }[]>`
      UPDATE processes SET inbox_closed = (message_count <= ${messageCount})
      WHERE id = ${processId}::uuid AND fence = ${fence} AND status = 'running'
      RETURNING inbox_closed AS "isClosed"`;
    return rows[0]?.isClosed ?? true;
  }

  /**
   * Refuses in the server's name what nobody has answered.
   * @returns how the question was decided: by whoever came first
   */
  async refuse(
    { processId, fence }: Run,
    permissionId: string,
    reason: 'expired' | 'withdrawn',
  ): Promise<PermissionDecision | null> {
    const payload = JSON.stringify({ decision: 'deny', reason });
    await this.prisma.$executeRaw`
      INSERT INTO process_commands (id, process_id, kind, payload, permission_id, handled_at)
      SELECT ${uuid()}::uuid, id, 'permission', ${payload}::jsonb, ${permissionId}::uuid, now() FROM processes
      WHERE id = ${processId}::uuid AND fence = ${fence} AND status = 'running' FOR UPDATE
      ON CONFLICT (process_id, permission_id) DO NOTHING`;
    const row = await this.prisma.processCommand.findUnique({
      where: { processId_permissionId: { processId, permissionId } },
      select: { payload: true, userId: true },
    });
    return row && decisionIn(row);
  }
}

const toJson = (runs: Run[]) => JSON.stringify(runs.map(({ processId: id, fence }) => ({ id, fence })));
