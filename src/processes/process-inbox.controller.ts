import { Body, Controller, Param, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import type { ErrorCode } from '../platform/errors/error-catalogue.js';
import { type IdParameters, IdParametersSchema } from '../platform/http/common.schemas.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { AnswersProcess, WAITED_ANSWERS } from './process-answer.decorators.js';
import {
  type PermissionAnswerRequest,
  PermissionAnswerRequestSchema,
  type PermissionParameters,
  PermissionParametersSchema,
  type SteeringMessageRequest,
  SteeringMessageRequestSchema,
} from './process-inbox.schemas.js';
import { ProcessInboxService } from './process-inbox.service.js';
import type { Process } from './processes.schemas.js';

const STATE_ERRORS: ErrorCode[] = ['process_not_found', 'process_not_started', 'process_ended'];
const BODY_ERRORS: ErrorCode[] = ['invalid_json', 'media_type_unsupported', 'body_too_large'];

@ApiTags('Claude')
@Requires('claude:execute')
@Controller('api/v1/claude/processes/:id')
export class ProcessInboxController {
  constructor(private readonly inbox: ProcessInboxService) {}

  @Post('permissions/:permissionId')
  @AnswersProcess({ waits: true })
  @Operation({
    id: 'answerPermission',
    summary: 'Answers what a process with `permissionMode: ask` has asked for',
    description:
      'The question is a `permission_requested` event, the decision a `permission_resolved` one. The first answer counts; ' +
      'the same again changes nothing. Only the owner of the process answers.',
    answers: WAITED_ANSWERS,
    errors: [
      ...BODY_ERRORS,
      ...STATE_ERRORS,
      'permission_not_found',
      'permission_already_answered',
      'permission_expired',
      'permission_withdrawn',
    ],
  })
  answerPermission(
    @CurrentCaller() caller: Caller,
    @Param({ schema: PermissionParametersSchema }) { id: processId, permissionId }: PermissionParameters,
    @Body({ schema: PermissionAnswerRequestSchema }) answer: PermissionAnswerRequest,
  ): Promise<Process> {
    return this.inbox.answerPermission(caller, { processId, permissionId }, answer);
  }

  @Post('messages')
  @AnswersProcess({ waits: true })
  @Operation({
    id: 'sendMessage',
    summary: 'Says something further to a process that runs',
    description:
      'The model answers it after what it says now, or has it with the result of the tool that runs now; a `user_message` ' +
      'event says when. The process ends with the answer to the last message. Only its owner says something.',
    answers: WAITED_ANSWERS,
    errors: [...BODY_ERRORS, ...STATE_ERRORS, 'too_many_messages'],
  })
  say(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @Body({ schema: SteeringMessageRequestSchema }) message: SteeringMessageRequest,
  ): Promise<Process> {
    return this.inbox.say(caller, id, message);
  }

  @Post('interrupt')
  @AnswersProcess({ waits: true })
  @Operation({
    id: 'interruptProcess',
    summary: 'Stops the turn of a process that runs, and keeps what it has',
    description:
      'The process is completed with what the model had said, `stopReason: interrupted`, unless messages wait: those are ' +
      'answered first. Only its owner interrupts it.',
    answers: WAITED_ANSWERS,
    errors: STATE_ERRORS,
  })
  interrupt(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
  ): Promise<Process> {
    return this.inbox.interrupt(caller, id);
  }
}
