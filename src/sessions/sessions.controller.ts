import { Body, Controller, Delete, Get, Param, Patch, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import type { ErrorCode } from '../platform/errors/error-catalogue.js';
import {
  type IdParameters,
  IdParametersSchema,
  type PageQuery,
  PageQuerySchema,
} from '../platform/http/common.schemas.js';
import { Operation } from '../platform/http/operation.decorator.js';
import {
  type CreateSessionRequest,
  CreateSessionRequestSchema,
  type ForkSessionRequest,
  ForkSessionRequestSchema,
  type MessagesQuery,
  MessagesQuerySchema,
  type Session,
  type SessionMessagePage,
  SessionMessagePageSchema,
  type SessionPage,
  SessionPageSchema,
  SessionSchema,
  type UpdateSessionRequest,
  UpdateSessionRequestSchema,
} from './sessions.schemas.js';
import { SessionsService } from './sessions.service.js';

const BODY_ERRORS: ErrorCode[] = ['invalid_json', 'media_type_unsupported', 'body_too_large'];

@ApiTags('Sessions')
@Requires('claude:read')
@Controller('api/v1/claude/sessions')
export class SessionsController {
  constructor(private readonly sessions: SessionsService) {}

  @Post()
  @Requires('claude:execute')
  @Operation({
    id: 'createSession',
    summary: 'Makes an empty session',
    description: 'A process without a `sessionId` makes one by itself.',
    answers: { 201: { description: 'The session', schema: SessionSchema } },
    errors: BODY_ERRORS,
  })
  create(
    @CurrentCaller() caller: Caller,
    @Body({ schema: CreateSessionRequestSchema }) request: CreateSessionRequest,
  ): Promise<Session> {
    return this.sessions.create(caller, request);
  }

  @Get()
  @Operation({
    id: 'listSessions',
    summary: 'Lists your sessions, newest first',
    answers: { 200: { description: 'A page of sessions', schema: SessionPageSchema } },
    errors: ['cursor_invalid'],
  })
  list(
    @CurrentCaller() caller: Caller,
    @Query({ schema: PageQuerySchema }) query: PageQuery,
  ): Promise<SessionPage> {
    return this.sessions.list(caller, query);
  }

  @Get(':id')
  @Operation({
    id: 'getSession',
    summary: 'The session',
    answers: { 200: { description: 'The session', schema: SessionSchema } },
    errors: ['session_not_found'],
  })
  find(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
  ): Promise<Session> {
    return this.sessions.find(caller, id);
  }

  @Patch(':id')
  @Requires('claude:execute')
  @Operation({
    id: 'updateSession',
    summary: 'Gives the session a title, or takes it away',
    answers: { 200: { description: 'The session', schema: SessionSchema } },
    errors: [...BODY_ERRORS, 'session_not_found'],
  })
  update(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @Body({ schema: UpdateSessionRequestSchema }) request: UpdateSessionRequest,
  ): Promise<Session> {
    return this.sessions.rename(caller, id, request);
  }

  @Delete(':id')
  @Requires('claude:execute')
  @Operation({
    id: 'deleteSession',
    summary: 'Deletes the session: what was said in it, and its workspace',
    description: 'Its processes stay, as do its forks. Refused while one of its processes runs or waits.',
    answers: { 204: { description: 'Deleted' } },
    errors: ['session_not_found', 'session_busy'],
  })
  remove(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
  ): Promise<void> {
    return this.sessions.remove(caller, id);
  }

  @Get(':id/messages')
  @Operation({
    id: 'listSessionMessages',
    summary: 'What was said in the session, from the beginning',
    answers: { 200: { description: 'A page of messages', schema: SessionMessagePageSchema } },
    errors: ['session_not_found'],
  })
  messages(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @Query({ schema: MessagesQuerySchema }) query: MessagesQuery,
  ): Promise<SessionMessagePage> {
    return this.sessions.readMessages(caller, id, query);
  }

  @Post(':id/fork')
  @Requires('claude:execute')
  @Operation({
    id: 'forkSession',
    summary: 'Makes a session that begins as this one, or as this one was',
    description:
      'Of your own sessions only. Refused while a process of it runs. Its files are copied as they are now, where they lie on ' +
      'the server that is asked.',
    answers: { 201: { description: 'The fork', schema: SessionSchema } },
    errors: [...BODY_ERRORS, 'session_not_found', 'session_busy', 'workspace_not_copied'],
  })
  fork(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @Body({ schema: ForkSessionRequestSchema }) request: ForkSessionRequest,
  ): Promise<Session> {
    return this.sessions.fork(caller, id, request);
  }
}
