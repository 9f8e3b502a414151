import { Controller, Get, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { type Metrics, type MetricsQuery, MetricsQuerySchema, MetricsSchema } from './metrics.schemas.js';
import { MetricsService } from './metrics.service.js';

@ApiTags('Claude')
@Controller('api/v1/claude/metrics')
export class MetricsController {
  constructor(private readonly metrics: MetricsService) {}

  @Get()
  @Requires('claude:read')
  @Operation({
    id: 'getMetrics',
    summary: 'Figures of your processes; of everybody for administrators',
    answers: { 200: { description: 'The figures', schema: MetricsSchema } },
  })
  read(
    @CurrentCaller() caller: Caller,
    @Query({ schema: MetricsQuerySchema }) query: MetricsQuery,
  ): Promise<Metrics> {
    return this.metrics.read(caller, query);
  }
}
