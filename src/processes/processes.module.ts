import { BullModule } from '@nestjs/bull';
import { type DynamicModule, Module } from '@nestjs/common';
import type { ServerConfig } from '../platform/config/config.js';
import { QueueModule } from '../platform/queue/queue.module.js';
import { DemoApi } from './demo-api.js';
import { engineProvider } from './engine.provider.js';
import { EventAppender } from './event-appender.js';
import { LeaseKeeper } from './lease-keeper.js';
import { LeaseReconciler } from './lease-reconciler.js';
import { OperationsService } from './operations.service.js';
import { ProcessChannel } from './process-channel.js';
import { ProcessClaimsRepository } from './process-claims.repository.js';
import { ProcessCommandsRepository } from './process-commands.repository.js';
import { ProcessDrain } from './process-drain.js';
import { ProcessEndingsRepository } from './process-endings.repository.js';
import { ProcessFollower } from './process-follower.js';
import { ProcessLogRepository } from './process-log.repository.js';
import { ProcessStatisticsRepository } from './process-statistics.repository.js';
import { ProcessRunner } from './process-runner.js';
import { ProcessWorker } from './process-worker.js';
import { ProcessesController } from './processes.controller.js';
import { ProcessesProcessor } from './processes.processor.js';
import { PROCESSES_QUEUE, ProcessesQueue } from './processes.queue.js';
import { ProcessesRepository } from './processes.repository.js';
import { ProcessesService } from './processes.service.js';
import { WorkerAnnouncer } from './worker-announcer.js';
import { WorkerDirectory } from './worker-directory.js';

const WORKER_PROVIDERS = [
  DemoApi,
  engineProvider,
  EventAppender,
  LeaseKeeper,
  ProcessCommandsRepository,
  ProcessDrain,
  ProcessesProcessor,
  ProcessRunner,
  ProcessWorker,
  WorkerAnnouncer,
];

@Module({})
export class ProcessesModule {
  static for({ runsProcesses, servesApi }: ServerConfig): DynamicModule {
    return {
      module: ProcessesModule,
      imports: [QueueModule.forRoot(), BullModule.registerQueue({ name: PROCESSES_QUEUE })],
      controllers: servesApi ? [ProcessesController] : [],
      providers: [
        LeaseReconciler,
        ProcessChannel,
        ProcessClaimsRepository,
        ProcessEndingsRepository,
        ProcessesQueue,
        ProcessesRepository,
        ProcessesService,
        ProcessFollower,
        ProcessLogRepository,
        ProcessStatisticsRepository,
        OperationsService,
        WorkerDirectory,
        ...(runsProcesses ? WORKER_PROVIDERS : []),
      ],
      exports: [OperationsService, ProcessesService, ...(runsProcesses ? [ProcessDrain] : [])],
    };
  }
}
