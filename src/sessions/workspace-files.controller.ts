import type { Readable } from 'node:stream';
import { Controller, Delete, Get, Param, Put, Query, Res } from '@nestjs/common';
import { ApiBody, ApiConsumes, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import type { ErrorCode } from '../platform/errors/error-catalogue.js';
import { type IdParameters, IdParametersSchema } from '../platform/http/common.schemas.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { type Streamed, StreamedBody, TakesStreamedBody } from '../platform/http/streamed-bodies.js';
import {
  type FileParameters,
  FileParametersSchema,
  type FilesQuery,
  FilesQuerySchema,
  type WorkspaceFilePage,
  WorkspaceFilePageSchema,
} from './workspace-files.schemas.js';
import { WorkspaceFilesService } from './workspace-files.service.js';

const BYTES = 'application/octet-stream';
const TAR = 'application/x-tar';
const WORKSPACE_ERRORS: ErrorCode[] = ['session_not_found', 'workspace_elsewhere'];
const FILE_ERRORS: ErrorCode[] = [
  ...WORKSPACE_ERRORS,
  'symlink_not_followed',
  'not_a_file',
  'file_unreadable',
];

@ApiTags('Sessions')
@Requires('claude:read')
@Controller('api/v1/claude/sessions/:id')
export class WorkspaceFilesController {
  constructor(private readonly files: WorkspaceFilesService) {}

  @Get('files')
  @Operation({
    id: 'listFiles',
    summary: 'Lists what is in the workspace of the session, folders before what is in them',
    description: 'Left out are names that are not UTF-8, and what is in folders that may not be read.',
    answers: { 200: { description: 'A page of files', schema: WorkspaceFilePageSchema } },
    errors: WORKSPACE_ERRORS,
  })
  list(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @Query({ schema: FilesQuerySchema }) query: FilesQuery,
  ): Promise<WorkspaceFilePage> {
    return this.files.list(caller, id, query);
  }

  @Get('files/*')
  @Operation({
    id: 'downloadFile',
    summary: 'The file, as it is',
    description:
      'It may become shorter while it is read, where a process of the session runs: then the connection is reset.',
    answers: {
      200: {
        description: 'The file',
        mediaType: BYTES,
        headers: ['Content-Length', 'Content-Disposition', 'ETag', 'Last-Modified'],
      },
    },
    errors: [...FILE_ERRORS, 'file_not_found'],
  })
  async download(
    @CurrentCaller() caller: Caller,
    @Param({ schema: FileParametersSchema }) file: FileParameters,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<Readable> {
    const { size, modifiedAt, tag, content } = await this.files.open(caller, file);
    asDownload(reply, { type: BYTES, name: file.path.split('/').at(-1) ?? '' });
    void reply
      .header('Content-Length', size)
      .header('ETag', `"${tag}"`)
      .header('Last-Modified', modifiedAt.toUTCString());
    return content();
  }

  @Put('files/*')
  @Requires('claude:execute')
  @TakesStreamedBody()
  @ApiConsumes(BYTES)
  @ApiBody({ required: true, schema: { type: 'string', format: 'binary' } })
  @Operation({
    id: 'uploadFile',
    summary: 'Writes the file, and the folders on the way to it',
    description:
      'The body is the file, whatever its type says. It is there whole or not at all. What it replaces keeps its permissions. It ' +
      'may come while a process of the session runs, which then finds it.',
    answers: { 201: { description: 'It was not there before' }, 204: { description: 'It was replaced' } },
    errors: [...FILE_ERRORS, 'file_too_large', 'workspace_full'],
  })
  async upload(
    @CurrentCaller() caller: Caller,
    @Param({ schema: FileParametersSchema }) file: FileParameters,
    @StreamedBody() body: Streamed,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<void> {
    const written = await this.files.write(caller, file, body);
    void reply.status(written === 'added' ? 201 : 204);
  }

  @Delete('files/*')
  @Requires('claude:execute')
  @Operation({
    id: 'deleteFile',
    summary: 'Deletes the file, or the folder with all that is in it',
    description: 'Of a symlink, the symlink itself.',
    answers: { 204: { description: 'Deleted' } },
    errors: [...FILE_ERRORS, 'file_not_found'],
  })
  remove(
    @CurrentCaller() caller: Caller,
    @Param({ schema: FileParametersSchema }) file: FileParameters,
  ): Promise<void> {
    return this.files.remove(caller, file);
  }

  @Get('archive')
  @Operation({
    id: 'downloadArchive',
    summary: 'The whole workspace as a tar',
    description:
      'Files, folders and symlinks, as they are when they are reached: a process that runs meanwhile may change what comes later. ' +
      'Left out is what the list leaves out, and what is nothing of these.',
    answers: { 200: { description: 'The tar', mediaType: TAR, headers: ['Content-Disposition'] } },
    errors: WORKSPACE_ERRORS,
  })
  async archive(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<Readable> {
    const tar = await this.files.archive(caller, id);
    asDownload(reply, { type: TAR, name: `${id}.tar` });
    return tar;
  }
}

/** No browser shows it, runs it or guesses what it is: whatever ran in the workspace may have written it. */
function asDownload(reply: FastifyReply, { type, name }: { type: string; name: string }): void {
  // RFC 8187: these four are left over.
  const encoded = encodeURIComponent(name).replaceAll(
    /['()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16)}`,
  );
  void reply
    .type(type)
    .header('X-Content-Type-Options', 'nosniff')
    .header('Content-Disposition', `attachment; filename*=UTF-8''${encoded}`)
    .header('Cache-Control', 'private, no-cache');
}
