import { Module } from '@nestjs/common';
import { TranscriptsRepository } from './transcripts.repository.js';
import { TranscriptsService } from './transcripts.service.js';

@Module({ providers: [TranscriptsRepository, TranscriptsService], exports: [TranscriptsService] })
export class SessionsModule {}
