import { Controller, Get } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { CurrentCaller, Public } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { ClaudeHealthService } from './claude-health.service.js';
import { type Health, HealthSchema } from './claude.schemas.js';

@ApiTags('Claude')
@Controller('api/v1/claude/health')
export class ClaudeHealthController {
  constructor(private readonly health: ClaudeHealthService) {}

  @Get()
  @Public()
  @Operation({
    id: 'getHealth',
    summary: 'Whether the service is well; with credentials, part by part',
    answers: { 200: { description: 'The health', schema: HealthSchema } },
    isPublic: true,
  })
  read(@CurrentCaller() caller: Caller | null): Promise<Health> {
    return this.health.read(caller);
  }
}
