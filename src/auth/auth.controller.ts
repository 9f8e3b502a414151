import { Body, Controller, Post } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Public } from '../platform/access/access.decorators.js';
import { Operation } from '../platform/http/operation.decorator.js';
import {
  type AccessToken,
  AccessTokenSchema,
  type LoginRequest,
  LoginRequestSchema,
} from './auth.schemas.js';
import { AuthService } from './auth.service.js';

@ApiTags('Auth')
@Controller('api/v1/auth')
export class AuthController {
  constructor(private readonly auth: AuthService) {}

  @Post('login')
  @Public()
  @Operation({
    id: 'login',
    summary: 'Exchanges e-mail and password for an access token',
    answers: { 200: { description: 'An access token, valid for 15 minutes', schema: AccessTokenSchema } },
    errors: ['credentials_wrong', 'invalid_json', 'media_type_unsupported'],
    isPublic: true,
  })
  login(@Body({ schema: LoginRequestSchema }) request: LoginRequest): Promise<AccessToken> {
    return this.auth.login(request);
  }
}
