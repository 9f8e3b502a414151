import { Injectable, Logger } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import { type Scope, ScopeSchema } from '../platform/access/access.schemas.js';
import type { Caller } from '../platform/access/caller.js';
import { AppError } from '../platform/errors/app-error.js';
import type { PageQuery } from '../platform/http/common.schemas.js';
import { decodeCursor, toPage } from '../platform/http/keyset-cursor.js';
import { hashApiKey, isApiKey, makeApiKey, prefixOf } from './api-key-format.js';
import { ApiKeysRepository } from './api-keys.repository.js';
import type { ApiKey, ApiKeyPage, CreateApiKeyRequest, CreatedApiKey } from './auth.schemas.js';
import { OpenCredentials } from './open-credentials.js';

const TOUCH_INTERVAL_MS = 60_000;

@Injectable()
export class ApiKeysService {
  private readonly logger = new Logger(ApiKeysService.name);

  constructor(
    private readonly keys: ApiKeysRepository,
    private readonly openCredentials: OpenCredentials,
  ) {}

  /** @throws AppError `forbidden` for what the caller does not have: a scope, or so much time */
  async create(caller: Caller, request: CreateApiKeyRequest): Promise<CreatedApiKey> {
    const beyond = request.scopes.filter((scope) => !caller.scopes.has(scope));
    if (beyond.length > 0)
      throw new AppError('forbidden', `You do not have the scope ${beyond.join(', ')} yourself.`);
    const { key, prefix, hash } = makeApiKey();
    const row = await this.keys.create({
      id: uuid(),
      userId: caller.userId,
      name: request.name,
      prefix,
      hash,
      scopes: [...new Set(request.scopes)],
      expiresAt: expiryFor(caller, request.expiresAt),
    });
    return { ...toApiKey(row), key };
  }

  /**
   * Makes what is written down somewhere already a key of that user: for the first start.
   * @returns whether it may be used now; not if it is no key, or is one that was revoked
   */
  async register(
    userId: string,
    key: string,
    { name, scopes }: { name: string; scopes: Scope[] },
  ): Promise<boolean> {
    if (!isApiKey(key)) return false;
    await this.keys.register({
      id: uuid(),
      userId,
      name,
      prefix: prefixOf(key),
      hash: hashApiKey(key),
      scopes,
      expiresAt: null,
    });
    return this.isUsable(key);
  }

  async isUsable(key: string): Promise<boolean> {
    return isApiKey(key) && (await this.keys.findUsable(hashApiKey(key))) !== null;
  }

  /** Whether the user has, or ever had, a key. */
  async hasAny(userId: string): Promise<boolean> {
    return (await this.keys.listOf(userId, null, 1)).length > 0;
  }

  async list(caller: Caller, { cursor, limit }: PageQuery): Promise<ApiKeyPage> {
    const position = cursor === undefined ? null : decodeCursor(cursor);
    const rows = await this.keys.listOf(caller.userId, position, limit + 1);
    return toPage(rows, limit, toApiKey);
  }

  async revoke(caller: Caller, id: string): Promise<void> {
    if (!(await this.keys.revoke(caller.userId, id)))
      throw new AppError('api_key_not_found', `You have no API key ${id}.`);
    this.openCredentials.lookEverywhere();
  }

  /** The caller behind a key, or null for one that is nobody's, expired or revoked. */
  async findCaller(key: string): Promise<Caller | null> {
    if (!isApiKey(key)) return null;
    const row = await this.keys.findUsable(hashApiKey(key));
    if (!row) return null;
    const now = Date.now();
    if (row.lastUsedAt === null || now - row.lastUsedAt.getTime() > TOUCH_INTERVAL_MS) {
      this.keys
        .touch(row.id, new Date(now - TOUCH_INTERVAL_MS))
        .catch((err: unknown) => this.logger.warn({ err }));
    }
    return {
      userId: row.userId,
      apiKeyId: row.id,
      isAdministrator: row.ownerRole === 'admin' && row.scopes.includes('admin'),
      scopes: new Set(parseScopes(row.scopes)),
      expiresAt: row.expiresAt?.getTime() ?? null,
    };
  }
}

/** A key that is made with a key ends no later than that. (Whoever signs in anew can make another at any time.) */
function expiryFor(
  { apiKeyId, expiresAt: makerExpiresAt }: Caller,
  asked: CreateApiKeyRequest['expiresAt'],
): Date | null {
  const limit = apiKeyId === null || makerExpiresAt === null ? null : new Date(makerExpiresAt);
  if (asked === undefined) return limit;
  const expiresAt = asked === null ? null : new Date(asked);
  if (limit === null || (expiresAt !== null && expiresAt <= limit)) return expiresAt;
  const detail = `must not be later than that of the key that makes it, ${limit.toISOString()}`;
  throw new AppError('forbidden', `/expiresAt: ${detail}`, {
    errors: [{ pointer: '/expiresAt', code: 'too_late', detail }],
  });
}

const parseScopes = (scopes: string[]): Scope[] => ScopeSchema.array().parse(scopes);

const toApiKey = (row: {
  id: string;
  name: string;
  prefix: string;
  scopes: string[];
  createdAt: Date;
  expiresAt: Date | null;
  lastUsedAt: Date | null;
  revokedAt: Date | null;
}): ApiKey => ({
  id: row.id,
  name: row.name,
  prefix: row.prefix,
  scopes: parseScopes(row.scopes),
  createdAt: row.createdAt.toISOString(),
  expiresAt: row.expiresAt?.toISOString() ?? null,
  lastUsedAt: row.lastUsedAt?.toISOString() ?? null,
  revokedAt: row.revokedAt?.toISOString() ?? null,
});
