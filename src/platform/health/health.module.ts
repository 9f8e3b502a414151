import { Global, Module } from '@nestjs/common';
import { HealthController } from './health.controller.js';
import { HealthService } from './health.service.js';
import { Lifecycle } from './lifecycle.js';

@Global()
@Module({
  controllers: [HealthController],
  providers: [HealthService, Lifecycle],
  exports: [HealthService, Lifecycle],
})
export class HealthModule {}
