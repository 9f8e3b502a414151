import { z } from 'zod';
import { ScopeSchema } from '../platform/access/access.schemas.js';
import { moment, timestamp } from '../platform/http/common.schemas.js';

export const LoginRequestSchema = z
  .strictObject({ email: z.email().max(254), password: z.string().min(1).max(128) })
  .meta({ id: 'LoginRequest' });

export type LoginRequest = z.output<typeof LoginRequestSchema>;

export const AccessTokenSchema = z
  .object({
    accessToken: z.string().meta({ description: 'Send it as Authorization: Bearer …' }),
    tokenType: z.literal('Bearer'),
    expiresAt: timestamp,
  })
  .meta({ id: 'AccessToken' });

export type AccessToken = z.output<typeof AccessTokenSchema>;

export const CreateApiKeyRequestSchema = z
  .strictObject({
    name: z
      .string()
      .trim()
      .min(1)
      .max(100)
      .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'must not hold control characters'),
    scopes: z
      .array(ScopeSchema)
      .min(1)
      .max(ScopeSchema.options.length)
      .default(['claude:execute', 'claude:read']),
    expiresAt: moment
      .refine((text) => Date.parse(text) > Date.now(), 'must be in the future')
      .nullable()
      .optional()
      .meta({ description: 'Null for never; unless said, when the key that makes it does, or never' }),
  })
  .meta({ id: 'CreateApiKeyRequest' });

export type CreateApiKeyRequest = z.output<typeof CreateApiKeyRequestSchema>;

const apiKeyFields = {
  id: z.uuid(),
  name: z.string(),
  prefix: z.string().meta({ description: 'How the key begins' }),
  scopes: z.array(ScopeSchema),
  createdAt: timestamp,
  expiresAt: timestamp.nullable(),
  lastUsedAt: timestamp.nullable(),
  revokedAt: timestamp.nullable(),
};

const ApiKeySchema = z.object(apiKeyFields).meta({ id: 'ApiKey' });

export type ApiKey = z.output<typeof ApiKeySchema>;

export const CreatedApiKeySchema = z
  .object({ ...apiKeyFields, key: z.string().meta({ description: 'The key itself; never shown again' }) })
  .meta({ id: 'CreatedApiKey' });

export type CreatedApiKey = z.output<typeof CreatedApiKeySchema>;

export const ApiKeyPageSchema = z
  .object({ items: z.array(ApiKeySchema), nextCursor: z.string().nullable() })
  .meta({ id: 'ApiKeyPage' });

export type ApiKeyPage = z.output<typeof ApiKeyPageSchema>;
