import { Injectable } from '@nestjs/common';
import type { Caller } from '../platform/access/caller.js';
import { AppError } from '../platform/errors/app-error.js';
import { ProcessChannel } from './process-channel.js';
import { type NotRunning, ProcessInboxRepository } from './process-inbox.repository.js';
import type { PermissionAnswerRequest, SteeringMessageRequest } from './process-inbox.schemas.js';
import type { Process } from './processes.schemas.js';
import { ProcessesService } from './processes.service.js';

const MIB = 1024 * 1024;
/** What a run may have to read still. */
const LIMITS = { maxMessages: 16, maxBytes: 4 * MIB };
/** When some of it may have been read. */
const RETRY_AFTER_MS = 5_000;

/** What the owner of a running process tells it: answers to its questions, further messages, to stop. Nobody else does, not even an administrator. */
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

  /** @throws AppError `process_not_found`, `process_not_started`, `process_ended`, `too_many_messages` */
  async say(caller: Caller, processId: string, { text }: SteeringMessageRequest): Promise<Process> {
    const taken = await this.inbox.say({ userId: caller.userId, processId }, text, LIMITS);
    if (taken.kind === 'full') {
      const detail = `It has ${LIMITS.maxMessages} messages, or ${LIMITS.maxBytes} bytes of them, still to read.`;
      throw new AppError('too_many_messages', detail, { retryAfterMs: RETRY_AFTER_MS });
    }
    return this.told(caller, processId, taken);
  }

  /** @throws AppError `process_not_found`, `process_not_started`, `process_ended` */
  async interrupt(caller: Caller, processId: string): Promise<Process> {
    const taken = await this.inbox.interrupt({ userId: caller.userId, processId });
    return this.told(caller, processId, taken);
  }

  private async told(
    caller: Caller,
    processId: string,
    taken: { kind: 'taken' } | NotRunning,
  ): Promise<Process> {
    if (taken.kind !== 'taken') throw notRunning(processId, taken);
    this.channel.publishCommand(processId);
    return this.processes.find(caller, processId);
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
