import { Injectable } from '@nestjs/common';
import type { SigningKey } from '../generated/prisma/client.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';

// Any number, as long as no one else locks it: servers that start together make one key between them.
const CREATION_LOCK = 7_201_126;

@Injectable()
export class SigningKeysRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** The newest key; the first time, the one that `make` gives. */
  async newestOr(make: () => { id: string; privateKey: string; publicKey: string }): Promise<SigningKey> {
    return this.prisma.$transaction(async (transaction) => {
      await transaction.$executeRaw`SELECT pg_advisory_xact_lock(${CREATION_LOCK})`;
      const newest = await transaction.signingKey.findFirst({ orderBy: { createdAt: 'desc' } });
      return newest ?? transaction.signingKey.create({ data: make() });
    });
  }

  findById(id: string): Promise<SigningKey | null> {
    return this.prisma.signingKey.findUnique({ where: { id } });
  }
}
