import { z } from 'zod';
import { pathFault } from '../../libs/workspace-files/index.js';
import { timestamp } from '../platform/http/common.schemas.js';

const filePath = z
  .string()
  .superRefine((path, context) => {
    const fault = pathFault(path);
    if (fault) context.addIssue({ code: 'custom', message: fault.message, params: { code: fault.code } });
  })
  .meta({ description: 'Names parted by `/`, relative to the workspace; the `/` need not be encoded' });

export const FileParametersSchema = z.strictObject({ id: z.uuid(), path: filePath });
export type FileParameters = z.output<typeof FileParametersSchema>;

export const FilesQuerySchema = z.strictObject({
  cursor: filePath.optional().meta({ description: 'The `nextCursor` of the page before' }),
  limit: z.coerce.number().int().min(1).max(1000).default(200),
});
export type FilesQuery = z.output<typeof FilesQuerySchema>;

const WorkspaceFileSchema = z
  .object({
    path: z.string(),
    type: z.enum(['file', 'folder', 'symlink', 'other']).meta({
      description: 'Only a `file` can be downloaded; `other` is a pipe, a socket or a device',
    }),
    size: z.int().nullable().meta({ description: 'In bytes; of a file only' }),
    modifiedAt: timestamp,
  })
  .meta({ id: 'WorkspaceFile' });

export const WorkspaceFilePageSchema = z
  .object({
    items: z.array(WorkspaceFileSchema),
    nextCursor: z.string().nullable().meta({ description: 'The `cursor` of what follows' }),
  })
  .meta({ id: 'WorkspaceFilePage' });
export type WorkspaceFilePage = z.output<typeof WorkspaceFilePageSchema>;
