import { type DynamicModule, Module } from '@nestjs/common';
import { MetricsController } from './metrics.controller.js';
import { MetricsService } from './metrics.service.js';

@Module({})
export class MetricsModule {
  /** @param processes the module whose figures it reads */
  static over(processes: DynamicModule): DynamicModule {
    return {
      module: MetricsModule,
      imports: [processes],
      controllers: [MetricsController],
      providers: [MetricsService],
    };
  }
}
