import { type DynamicModule, Module } from '@nestjs/common';
import { APP_GUARD, APP_INTERCEPTOR } from '@nestjs/core';
import { JwtModule } from '@nestjs/jwt';
import type { ServerConfig } from '../platform/config/config.js';
import { UsersModule } from '../users/users.module.js';
import { AccessGuard } from './access.guard.js';
import { AccessTokens } from './access-tokens.js';
import { ApiKeysController } from './api-keys.controller.js';
import { ApiKeysRepository } from './api-keys.repository.js';
import { ApiKeysService } from './api-keys.service.js';
import { AuthController } from './auth.controller.js';
import { AuthService } from './auth.service.js';
import { Authenticator } from './authenticator.js';
import { CredentialsRepository } from './credentials.repository.js';
import { FirstStart } from './first-start.js';
import { OpenCredentials } from './open-credentials.js';
import { SigningKeysRepository } from './signing-keys.repository.js';
import { StreamedAnswersInterceptor } from './streamed-answers.interceptor.js';

@Module({})
export class AuthModule {
  static for({ servesApi }: ServerConfig): DynamicModule {
    return {
      module: AuthModule,
      imports: [UsersModule, JwtModule.register({})],
      controllers: servesApi ? [AuthController, ApiKeysController] : [],
      providers: [
        AccessTokens,
        ApiKeysRepository,
        ApiKeysService,
        Authenticator,
        AuthService,
        CredentialsRepository,
        OpenCredentials,
        SigningKeysRepository,
        { provide: APP_GUARD, useClass: AccessGuard },
        { provide: APP_INTERCEPTOR, useClass: StreamedAnswersInterceptor },
        ...(servesApi ? [FirstStart] : []),
      ],
      exports: [Authenticator, OpenCredentials],
    };
  }
}
