import { Injectable } from '@nestjs/common';
import type { Caller } from '../platform/access/caller.js';
import { AppError } from '../platform/errors/app-error.js';
import { ProcessChannel } from './process-channel.js';
import { type NotRunning, ProcessInboxRepository } from './process-inbox.repository.js';
import type { PermissionAnswerRequest } from './process-inbox.schemas.js';
import type { Process } from './processes.schemas.js';
import { ProcessesService } from './processes.service.js';

/** What the owner of a running process tells it: answers to its questions. Nobody else does, not even an administrator. */
@Injectable()
export class ProcessInboxService {
  constructor(
    private readonly inbox: ProcessInboxRepository,
    private readonly processes: ProcessesService,
    private readonly channel: ProcessChannel,
  ) {}

  /**
   * Answers a question for permission; the same answer again changes nothing.
   * @throws AppError `process_not_found`, `process_not_started`, `process_ended`, `permission_not_found`,
   *   `permission_already_answered`, `permission_expired`, `permission_withdrawn`
   */
  async answerPermission(
    caller: Caller,
    { processId, permissionId }: { processId: string; permissionId: string },
    answer: PermissionAnswerRequest,
  ): Promise<Process> {
    const { userId } = caller;
    const taken = await this.inbox.answer({ userId, processId, permissionId }, answer);
    switch (taken.kind) {
      case 'taken':
      case 'taken_before':
        this.channel.publishCommand(processId);
        return this.processes.find(caller, processId);
      case 'unknown_permission':
        throw new AppError('permission_not_found', `The process has not asked for ${permissionId}.`);
      case 'answered':
        throw new AppError('permission_already_answered', 'The first answer counts, and it is another one.');
      case 'expired':
        throw new AppError('permission_expired', 'Nobody had answered in time: the tool call was refused.');
      case 'withdrawn':
        throw new AppError('permission_withdrawn', 'The run that had asked does not need it any more.');
      default:
        throw notRunning(processId, taken);
    }
  }
}

function notRunning(processId: string, { kind }: NotRunning): AppError {
  switch (kind) {
    case 'unknown_process':
      return new AppError('process_not_found', `There is no process ${processId}.`);
    case 'not_started':
      return new AppError('process_not_started', 'It waits in the queue, and takes this once it runs.');
    case 'ended':
      return new AppError('process_ended', 'Its run is over; name its session in another request to go on.');
    case 'being_cancelled':
      return new AppError('process_ended', 'It is being cancelled.');
  }
}
