import { Body, Controller, Delete, Get, Param, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import {
  type IdParameters,
  IdParametersSchema,
  type PageQuery,
  PageQuerySchema,
} from '../platform/http/common.schemas.js';
import { Operation } from '../platform/http/operation.decorator.js';
import { ApiKeysService } from './api-keys.service.js';
import {
  type ApiKeyPage,
  ApiKeyPageSchema,
  type CreateApiKeyRequest,
  CreateApiKeyRequestSchema,
  type CreatedApiKey,
  CreatedApiKeySchema,
} from './auth.schemas.js';

@ApiTags('Auth')
@Requires('keys:manage')
@Controller('api/v1/auth/api-keys')
export class ApiKeysController {
  constructor(private readonly keys: ApiKeysService) {}

  @Post()
  @Operation({
    id: 'createApiKey',
    summary: 'Makes an API key',
    description:
      'The answer is the only place where the key is ever shown. It may do no more than its maker, and a key that is made with a key ends no later than that.',
    answers: { 201: { description: 'The key', schema: CreatedApiKeySchema } },
    errors: ['invalid_json', 'media_type_unsupported'],
  })
  create(
    @CurrentCaller() caller: Caller,
    @Body({ schema: CreateApiKeyRequestSchema }) request: CreateApiKeyRequest,
  ): Promise<CreatedApiKey> {
    return this.keys.create(caller, request);
  }

  @Get()
  @Operation({
    id: 'listApiKeys',
    summary: 'Lists your API keys, newest first',
    answers: { 200: { description: 'A page of keys', schema: ApiKeyPageSchema } },
    errors: ['cursor_invalid'],
  })
  list(
    @CurrentCaller() caller: Caller,
    @Query({ schema: PageQuerySchema }) query: PageQuery,
  ): Promise<ApiKeyPage> {
    return this.keys.list(caller, query);
  }

  @Delete(':id')
  @Operation({
    id: 'revokeApiKey',
    summary: 'Revokes an API key, at once and for good',
    answers: { 204: { description: 'Revoked' } },
    errors: ['api_key_not_found'],
  })
  revoke(
    @CurrentCaller() caller: Caller,
    @Param({ schema: IdParametersSchema }) { id }: IdParameters,
  ): Promise<void> {
    return this.keys.revoke(caller, id);
  }
}
