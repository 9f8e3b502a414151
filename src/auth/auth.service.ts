import { Injectable } from '@nestjs/common';
import { AppError } from '../platform/errors/app-error.js';
import { UsersService } from '../users/users.service.js';
import { AccessTokens } from './access-tokens.js';
import type { AccessToken, LoginRequest } from './auth.schemas.js';

@Injectable()
export class AuthService {
  constructor(
    private readonly users: UsersService,
    private readonly tokens: AccessTokens,
  ) {}

  /** @throws AppError `credentials_wrong`, whether the address or the password is */
  async login({ email, password }: LoginRequest): Promise<AccessToken> {
    const account = await this.users.findByCredentials(email, password);
    if (!account) throw new AppError('credentials_wrong', 'The e-mail address or the password is wrong.');
    const { token, expiresAt } = await this.tokens.issue(account.id);
    return { accessToken: token, tokenType: 'Bearer', expiresAt: expiresAt.toISOString() };
  }
}
