import { Injectable } from '@nestjs/common';
import type { ApiKey, User } from '../generated/prisma/client.js';
import { afterCursor, type KeysetPosition, NEWEST_FIRST } from '../platform/http/keyset-cursor.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';

interface NewApiKeyRow {
  id: string;
  userId: string;
  name: string;
  prefix: string;
  hash: Uint8Array<ArrayBuffer>;
  scopes: string[];
  expiresAt: Date | null;
}

@Injectable()
export class ApiKeysRepository {
  constructor(private readonly prisma: PrismaService) {}

  create(key: NewApiKeyRow): Promise<ApiKey> {
    return this.prisma.apiKey.create({ data: key });
  }

  /** Does nothing where there is such a key: another server may have been first. */
  async register(key: NewApiKeyRow): Promise<void> {
    await this.prisma.apiKey.createMany({ data: [key], skipDuplicates: true });
  }

  listOf(userId: string, position: KeysetPosition | null, limit: number): Promise<ApiKey[]> {
    return this.prisma.apiKey.findMany({
      where: { userId, ...afterCursor(position) },
      orderBy: [...NEWEST_FIRST],
      take: limit,
    });
  }

  /** The key and its owner, unless either may not be used any more. */
  findUsable(hash: Uint8Array<ArrayBuffer>): Promise<(ApiKey & { user: User }) | null> {
    return this.prisma.apiKey.findFirst({
      where: {
        hash,
        revokedAt: null,
        OR: [{ expiresAt: null }, { expiresAt: { gt: new Date() } }],
        user: { disabledAt: null },
      },
      include: { user: true },
    });
  }

  /** Writes at most once a minute a key. */
  async touch(id: string, unlessAfter: Date): Promise<void> {
    await this.prisma.apiKey.updateMany({
      where: { id, OR: [{ lastUsedAt: null }, { lastUsedAt: { lt: unlessAfter } }] },
      data: { lastUsedAt: new Date() },
    });
  }

  /** @returns whether the user has such a key */
  async revoke(userId: string, id: string): Promise<boolean> {
    await this.prisma.apiKey.updateMany({
      where: { id, userId, revokedAt: null },
      data: { revokedAt: new Date() },
    });
    return (await this.prisma.apiKey.count({ where: { id, userId } })) === 1;
  }
}
