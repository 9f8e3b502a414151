import { Body, Controller, Param, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import type { ErrorCode } from '../platform/errors/error-catalogue.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { AnswersProcess, WAITED_ANSWERS } from './process-answer.decorators.js';
import {
  type PermissionAnswerRequest,
  PermissionAnswerRequestSchema,
  type PermissionParameters,
  PermissionParametersSchema,
} from './process-inbox.schemas.js';
import { ProcessInboxService } from './process-inbox.service.js';
import type { Process } from './processes.schemas.js';

const ERRORS: ErrorCode[] = [
  'invalid_json',
  'media_type_unsupported',
  'body_too_large',
  'process_not_found',
  'process_not_started',
  'process_ended',
];

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
      ...ERRORS,
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
}
