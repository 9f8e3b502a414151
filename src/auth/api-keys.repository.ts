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

export interface UsableApiKey extends Pick<ApiKey, 'id' | 'userId' | 'scopes' | 'expiresAt' | 'lastUsedAt'> {
  ownerRole: User['role'];
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
  async findUsable(hash: Uint8Array<ArrayBuffer>): Promise<UsableApiKey | null> {
    // One query, and not one for each table: every request begins with it.
    const rows = await this.prisma.direct.$queryRaw<UsableApiKey[]>`
      SELECT key.id, key.user_id AS "userId", key.scopes, key.expires_at AS "expiresAt",
        key.last_used_at AS "lastUsedAt", owner.role AS "ownerRole"
      FROM api_keys key JOIN users owner ON owner.id = key.user_id
      WHERE key.hash = ${hash} AND key.revoked_at IS NULL AND owner.disabled_at IS NULL
        AND (key.expires_at IS NULL OR key.expires_at > now())`;
    return rows[0] ?? null;
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
