import type { Readable } from 'node:stream';
import { Controller, Delete, Get, HttpCode, Param, Post, Query, Res } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import { Lifecycle } from '../platform/health/lifecycle.js';
import { type IdParameters, IdParametersSchema } from '../platform/http/common.schemas.js';
import { sendEventStream } from '../platform/http/event-stream.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { ClientGone, PreferredWaitMs } from '../platform/http/request.decorators.js';
import { AnswersProcess, WAITED_ANSWERS } from './process-answer.decorators.js';
import {
  type ProcessEventPage,
  ProcessEventPageSchema,
  ProcessEventSchema,
} from './process-events.schemas.js';
import {
  type EventsQuery,
  EventsQuerySchema,
  type ListProcessesQuery,
  ListProcessesQuerySchema,
  type StreamQuery,
  StreamQuerySchema,
} from './process-queries.schemas.js';
import { LastEventId } from './process-request.decorators.js';
import { type Process, type ProcessPage, ProcessPageSchema, ProcessSchema } from './processes.schemas.js';
import { ProcessesService } from './processes.service.js';

@ApiTags('Claude')
@Requires('claude:read')
@Controller('api/v1/claude/processes')
export class ProcessesController {
  constructor(
    private readonly processes: ProcessesService,
    private readonly lifecycle: Lifecycle,
  ) {}

  @Get()
  @Operation({
    id: 'listProcesses',
    summary: 'Lists your processes, newest first',
    answers: { 200: { description: 'A page of summaries', schema: ProcessPageSchema } },
    errors: ['cursor_invalid'],
  })
  list(
    @CurrentCaller() caller: Caller,
    @Query({ schema: ListProcessesQuerySchema }) query: ListProcessesQuery,
  ): Promise<ProcessPage> {
    return this.processes.list(caller, query);
  }

  @Get(':id')
  @AnswersProcess({ waits: false })
  @Operation({
    id: 'getProcess',
    summary: 'The process; with Prefer: wait=N, once it has ended or N seconds are over',
    answers: { 200: { description: 'The process', schema: ProcessSchema, headers: ['Process-Status'] } },
    headers: { Prefer: 'wait=N: wait up to N seconds for the end' },
    errors: ['process_not_found'],
  })
  find(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @PreferredWaitMs() waitMs: number | null,
    @ClientGone() clientGone: AbortSignal,
  ): Promise<Process> {
    return this.processes.findWaiting(caller, id, { waitMs: waitMs ?? 0, clientGone });
  }

  @Delete(':id')
  @Requires('claude:execute')
  @AnswersProcess({ waits: true })
  @Operation({
    id: 'cancelProcess',
    summary: 'Cancels the process; its record stays',
    description:
      'What waits is cancelled at once. What runs ends within seconds. What has ended stays as it is.',
    answers: WAITED_ANSWERS,
    errors: ['process_not_found'],
  })
  cancel(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
  ): Promise<Process> {
    return this.processes.cancel(caller, id);
  }

  @Post(':id/cancel')
  @Requires('claude:execute')
  @AnswersProcess({ waits: true })
  @Operation({
    id: 'cancelProcessByPost',
    summary: 'The same as DELETE, for clients that cannot send it',
    answers: WAITED_ANSWERS,
    errors: ['process_not_found'],
  })
  cancelByPost(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
  ): Promise<Process> {
    return this.processes.cancel(caller, id);
  }

  @Delete(':id/content')
  @Requires('claude:execute')
  @Operation({
    id: 'deleteProcessContent',
    summary: 'Deletes the prompt, the result and the log of a process that has ended',
    description:
      'For good: ids, times, status, error, usage and cost are left, and the last event of the log, without its content.',
    answers: { 200: { description: 'What is left of the process', schema: ProcessSchema } },
    errors: ['process_not_found', 'process_not_ended'],
  })
  deleteContent(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
  ): Promise<Process> {
    return this.processes.deleteContent(caller, id);
  }

  @Get(':id/events')
  @Operation({
    id: 'listProcessEvents',
    summary: 'The log of the process, as far as it has come',
    answers: { 200: { description: 'A page of the log', schema: ProcessEventPageSchema } },
    errors: ['process_not_found', 'cursor_invalid', 'events_pruned'],
  })
  events(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @Query({ schema: EventsQuerySchema }) query: EventsQuery,
  ): Promise<ProcessEventPage> {
    return this.processes.readEvents(caller, id, query);
  }

  @Get(':id/events/stream')
  @HttpCode(200)
  @Operation({
    id: 'streamProcessEvents',
    summary: 'The log of the process as server-sent events: what is there, then live to the end',
    description:
      'Resumes by Last-Event-ID or `after`. `id:` is the seq, `event:` the type and `data:` the ProcessEvent. ' +
      'A comment comes every 15 s. After the terminal event the stream closes; when the server shuts down, it is reset.',
    answers: {
      200: { description: 'The events', schema: ProcessEventSchema, mediaType: 'text/event-stream' },
    },
    headers: { 'Last-Event-ID': 'The seq after which to go on' },
    errors: ['process_not_found', 'cursor_invalid', 'events_pruned'],
  })
  stream(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @Query({ schema: StreamQuerySchema }) { after, include }: StreamQuery,
    @LastEventId() lastEventId: number | undefined,
    @ClientGone() clientGone: AbortSignal,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<Readable> {
    return sendEventStream(reply, {
      open: (signal) =>
        this.processes.follow(caller, id, { after: lastEventId ?? after ?? 0, include }, signal),
      clientGone,
      reset: this.lifecycle.drainSignal,
    });
  }
}
