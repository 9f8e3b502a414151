import { Injectable } from '@nestjs/common';
import { PrismaService } from '../platform/prisma/prisma.service.js';

/** What somebody wants of a running process. */
export interface ProcessCommand {
  processId: string;
  kind: string;
  payload: unknown;
}

/** The inboxes of running processes. Rows first: the message that hints at them may get lost. */
@Injectable()
export class ProcessCommandsRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Takes what lies in the inboxes of processes that this worker runs, in order. Each is taken once. */
  take(owner: string, processIds: string[]): Promise<ProcessCommand[]> {
    return this.prisma.$queryRaw`
      WITH taken AS (
        UPDATE process_commands command SET handled_at = now() FROM processes process
        WHERE command.process_id = ANY(${processIds}::uuid[]) AND command.handled_at IS NULL
          AND process.id = command.process_id AND process.owner = ${owner} AND process.status = 'running'
        RETURNING command.id, command.process_id AS "processId", command.kind, command.payload
      )
      SELECT "processId", kind, payload FROM taken ORDER BY id`;
  }
}
