import { BullModule } from '@nestjs/bull';
import { type DynamicModule, Module } from '@nestjs/common';
import type { ServerConfig } from '../platform/config/config.js';
import { QueueModule } from '../platform/queue/queue.module.js';
import { SessionsModule } from '../sessions/sessions.module.js';
import { DemoApi } from './demo-api.js';
import { engineProvider } from './engine.provider.js';
import { EventAppender } from './event-appender.js';
import { FairOrderKeeper } from './fair-order-keeper.js';
import { FairOrderRepository } from './fair-order.repository.js';
import { LeaseKeeper } from './lease-keeper.js';
import { LeaseReconciler } from './lease-reconciler.js';
import { OperationsService } from './operations.service.js';
import { ProcessChannel } from './process-channel.js';
import { ProcessClaimsRepository } from './process-claims.repository.js';
import { ProcessCommandsRepository } from './process-commands.repository.js';
import { ProcessDrain } from './process-drain.js';
import { ProcessEndingsRepository } from './process-endings.repository.js';
import { ProcessInboxController } from './process-inbox.controller.js';
import { ProcessInboxRepository } from './process-inbox.repository.js';
import { ProcessInboxService } from './process-inbox.service.js';
import { ProcessFollower } from './process-follower.js';
import { ProcessLeasesRepository } from './process-leases.repository.js';
import { ProcessLogRepository } from './process-log.repository.js';
import { ProcessRetentionRepository } from './process-retention.repository.js';
import { ProcessStatisticsRepository } from './process-statistics.repository.js';
import { ProcessRunner } from './process-runner.js';
import { RunWorkspaces } from './run-workspaces.js';
import { ProcessSubmissionsRepository } from './process-submissions.repository.js';
import { ProcessSubmissionsService } from './process-submissions.service.js';
import { ProcessWorker } from './process-worker.js';
import { ProcessesController } from './processes.controller.js';
import { ProcessesProcessor } from './processes.processor.js';
import { PROCESSES_QUEUE, ProcessesQueue } from './processes.queue.js';
import { ProcessesRepository } from './processes.repository.js';
import { ProcessesService } from './processes.service.js';
import { QueueForecastService } from './queue-forecast.service.js';
import { QueuePlacesRepository } from './queue-places.repository.js';
import { RequestChecks } from './request-checks.js';
import { RetentionSweep } from './retention-sweep.js';
import { StrayRuns } from './stray-runs.js';
import { WorkerAnnouncer } from './worker-announcer.js';
import { WorkerDirectory } from './worker-directory.js';
import { WorkspaceSweep } from './workspace-sweep.js';

const WORKER_PROVIDERS = [
  DemoApi,
  engineProvider,
  EventAppender,
  LeaseKeeper,
  ProcessCommandsRepository,
  ProcessDrain,
  ProcessLeasesRepository,
  ProcessesProcessor,
  ProcessRunner,
  RunWorkspaces,
  ProcessWorker,
  StrayRuns,
  WorkerAnnouncer,
  WorkspaceSweep,
];

@Module({})
export class ProcessesModule {
  static for(config: ServerConfig): DynamicModule {
    const { runsProcesses, servesApi } = config;
    return {
      module: ProcessesModule,
      imports: [
        SessionsModule.for(config),
        QueueModule.forRoot(),
        BullModule.registerQueue({ name: PROCESSES_QUEUE }),
      ],
      controllers: servesApi ? [ProcessesController, ProcessInboxController] : [],
      providers: [
        FairOrderKeeper,
        FairOrderRepository,
        LeaseReconciler,
        ProcessChannel,
        ProcessClaimsRepository,
        ProcessEndingsRepository,
        ProcessesQueue,
        ProcessesRepository,
        ProcessesService,
        ProcessFollower,
        ProcessInboxRepository,
        ProcessInboxService,
        ProcessLogRepository,
        ProcessRetentionRepository,
        ProcessStatisticsRepository,
        ProcessSubmissionsRepository,
        ProcessSubmissionsService,
        QueueForecastService,
        QueuePlacesRepository,
        RequestChecks,
        RetentionSweep,
        OperationsService,
        WorkerDirectory,
        ...(runsProcesses ? WORKER_PROVIDERS : []),
      ],
      exports: [
        OperationsService,
        ProcessInboxService,
        ProcessesService,
        ProcessSubmissionsService,
        QueueForecastService,
        ...(runsProcesses ? [ProcessDrain] : []),
      ],
    };
  }
}
