import { Controller, Get, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Requires } from '../platform/access/access.decorators.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { ClaudeQueueService } from './claude-queue.service.js';
import { type Queue, QueueSchema } from './claude.schemas.js';

const ANSWER = { 200: { description: 'The queue', schema: QueueSchema } };

@ApiTags('Operations')
@Requires('admin')
@Controller('api/v1/claude/queue')
export class ClaudeQueueController {
  constructor(private readonly queue: ClaudeQueueService) {}

  @Get()
  @Operation({ id: 'getQueue', summary: 'The queue and its workers, for administrators', answers: ANSWER })
  read(): Promise<Queue> {
    return this.queue.read();
  }

  @Post('pause')
  @Operation({
    id: 'pauseQueue',
    summary: 'Lets nothing new run, on no worker; what runs goes on, and submits are taken',
    answers: ANSWER,
  })
  pause(): Promise<Queue> {
    return this.queue.pause();
  }

  @Post('resume')
  @Operation({ id: 'resumeQueue', summary: 'Ends a pause', answers: ANSWER })
  resume(): Promise<Queue> {
    return this.queue.resume();
  }
}
