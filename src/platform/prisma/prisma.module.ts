import { Global, Module } from '@nestjs/common';
import { PrismaService, UrgentPrismaService } from './prisma.service.js';

@Global()
@Module({ providers: [PrismaService, UrgentPrismaService], exports: [PrismaService, UrgentPrismaService] })
export class PrismaModule {}
