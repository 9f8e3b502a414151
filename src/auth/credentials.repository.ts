import { Injectable } from '@nestjs/common';
import type { Caller } from '../platform/access/caller.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';

@Injectable()
export class CredentialsRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Of the accounts and the API keys of these callers, the ids of those that may still be used: one query for all. */
  async findUsable(callers: Pick<Caller, 'userId' | 'apiKeyId'>[]): Promise<Set<string>> {
    const userIds = [...new Set(callers.map(({ userId }) => userId))];
    const keyIds = [...new Set(callers.flatMap(({ apiKeyId }) => apiKeyId ?? []))];
    const rows = await this.prisma.$queryRaw<{ userId: string; keyId: string | null }[]>`
      SELECT users.id AS "userId", keys.id AS "keyId"
      FROM users LEFT JOIN api_keys keys
        ON keys.user_id = users.id AND keys.id = ANY(${keyIds}::uuid[])
        AND keys.revoked_at IS NULL AND (keys.expires_at IS NULL OR keys.expires_at > now())
      WHERE users.id = ANY(${userIds}::uuid[]) AND users.disabled_at IS NULL`;
    return new Set(rows.flatMap(({ userId, keyId }) => (keyId === null ? [userId] : [userId, keyId])));
  }
}
