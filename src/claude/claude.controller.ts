import type { Readable } from 'node:stream';
import { Body, Controller, Post, Res } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import type { ErrorCode } from '../platform/errors/error-catalogue.js';
import { Lifecycle } from '../platform/health/lifecycle.js';
import { sendEventStream } from '../platform/http/event-stream.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { ClientGone, PreferredWaitMs, WantsEventStream } from '../platform/http/request.decorators.js';
import { AnswersProcess, WAITED_ANSWERS } from '../processes/process-answer.decorators.js';
import { type ExecuteRequest, ExecuteRequestSchema, type Process } from '../processes/processes.schemas.js';
import { type Idempotency, IdempotencyOfRequest } from './claude.decorators.js';
import { ClaudeService } from './claude.service.js';

const SUBMIT_ERRORS: ErrorCode[] = [
  'invalid_json',
  'media_type_unsupported',
  'body_too_large',
  'tool_not_allowed',
  'model_not_allowed',
  'output_schema_invalid',
  'idempotency_key_reused',
  'queue_full',
  'outcome_unknown',
  'session_not_found',
  'session_busy',
];
const IDEMPOTENCY_HEADER = {
  'Idempotency-Key':
    'Names the request for 24 hours: sent again, over whichever route or transport, it joins the process that it made, and the answer has `Idempotent-Replayed: true`',
};

/** A run begins within it, if a slot is free: by the same thread, which a stream's beginning takes 2 ms of. */
const GIVE_WAY_MS = 10;

@ApiTags('Claude')
@Requires('claude:execute')
@Controller('api/v1/claude/execute')
export class ClaudeController {
  constructor(
    private readonly claude: ClaudeService,
    private readonly lifecycle: Lifecycle,
  ) {}

  @Post()
  @AnswersProcess({ waits: true })
  @Operation({
    id: 'execute',
    summary: 'Submits a prompt and waits for its end',
    description:
      'Waits at most as long as the server lets it (EXECUTE_MAX_WAIT_MS) or `Prefer: wait=N` says. An error status means ' +
      'that no process was made; what became of one is in its `status`. With `Accept: text/event-stream` the answer is the ' +
      'event stream of the process instead.',
    answers: WAITED_ANSWERS,
    alsoAnswersWith: ['text/event-stream'],
    headers: { Prefer: 'wait=N: wait up to N seconds for the end', ...IDEMPOTENCY_HEADER },
    errors: SUBMIT_ERRORS,
  })
  async execute(
    @CurrentCaller() caller: Caller,
    @Body({ schema: ExecuteRequestSchema }) request: ExecuteRequest,
    @IdempotencyOfRequest() idempotency: Idempotency | null,
    @PreferredWaitMs() waitMs: number | null,
    @ClientGone() clientGone: AbortSignal,
    @WantsEventStream() wantsEventStream: boolean,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<Process | Readable> {
    if (!wantsEventStream) return this.claude.execute(caller, request, { idempotency, waitMs, clientGone });
    return sendEventStream(reply, {
      open: (signal) => this.claude.executeFollowed(caller, request, { idempotency, clientGone, signal }),
      clientGone,
      giveWayMs: GIVE_WAY_MS,
      reset: this.lifecycle.drainSignal,
    });
  }

  @Post('async')
  @AnswersProcess({ waits: true })
  @Operation({
    id: 'executeAsync',
    summary: 'Submits a prompt',
    description:
      'Answers once the process is durable. `cancelOnDisconnect` has no effect: no connection is held.',
    answers: { 202: WAITED_ANSWERS[202] },
    headers: IDEMPOTENCY_HEADER,
    errors: SUBMIT_ERRORS,
  })
  executeAsync(
    @CurrentCaller() caller: Caller,
    @Body({ schema: ExecuteRequestSchema }) request: ExecuteRequest,
    @IdempotencyOfRequest() idempotency: Idempotency | null,
  ): Promise<Process> {
    return this.claude.submit(caller, request, { idempotency });
  }
}
