import { type DynamicModule, Module } from '@nestjs/common';
import type { ServerConfig } from '../platform/config/config.js';
import { SessionsController } from './sessions.controller.js';
import { SessionsEvents } from './sessions.events.js';
import { SessionsRepository } from './sessions.repository.js';
import { SessionsService } from './sessions.service.js';
import { SessionWorkspaces } from './session-workspaces.js';
import { TranscriptsRepository } from './transcripts.repository.js';
import { TranscriptsService } from './transcripts.service.js';
import { WorkspaceFilesController } from './workspace-files.controller.js';
import { WorkspaceFilesService } from './workspace-files.service.js';

@Module({})
export class SessionsModule {
  static for({ servesApi }: ServerConfig): DynamicModule {
    return {
      module: SessionsModule,
      controllers: servesApi ? [SessionsController, WorkspaceFilesController] : [],
      providers: [
        SessionsEvents,
        SessionsRepository,
        SessionsService,
        SessionWorkspaces,
        TranscriptsRepository,
        TranscriptsService,
        WorkspaceFilesService,
      ],
      exports: [SessionsEvents, SessionsService, TranscriptsService],
    };
  }
}
