import { Injectable } from '@nestjs/common';
import passport from 'passport';
import { Strategy as CustomStrategy } from 'passport-custom';
import { ExtractJwt, Strategy as JwtStrategy } from 'passport-jwt';
import { z } from 'zod';
import { ScopeSchema } from '../platform/access/access.schemas.js';
import type { Caller } from '../platform/access/caller.js';
import { AppError } from '../platform/errors/app-error.js';
import { UsersService } from '../users/users.service.js';
import { AccessTokens, TOKEN_ALGORITHM, TOKEN_AUDIENCE, TOKEN_ISSUER } from './access-tokens.js';
import { ApiKeysService } from './api-keys.service.js';

const STRATEGIES = ['access-token', 'api-key'];
const MS_PER_S = 1000;
const ClaimsSchema = z.object({ sub: z.uuid(), exp: z.number() });
const BEARER = /^Bearer +(\S+)$/i;

export type Credentials = Record<string, string | string[] | undefined>;

/** Finds the caller behind the headers of a request, or the token of a socket, with passport's strategies. */
@Injectable()
export class Authenticator {
  // An instance of our own: passport's default one is shared by every server in a Node process.
  private readonly passport = new passport.Passport();

  constructor(
    private readonly tokens: AccessTokens,
    private readonly apiKeys: ApiKeysService,
    private readonly users: UsersService,
  ) {
    this.passport.use('access-token', this.accessTokenStrategy());
    this.passport.use('api-key', this.apiKeyStrategy());
  }

  /** @throws AppError `unauthenticated` */
  async authenticate(headers: Credentials): Promise<Caller> {
    const caller = await new Promise<Caller | false | null | undefined>((resolve, reject) => {
      const done = (error: Error | null, found?: Caller | false | null, challenges: unknown[] = []) => {
        const failure = error ?? challenges.find((challenge) => challenge instanceof KeyLookupError);
        if (failure) reject(failure);
        else resolve(found);
      };
      const middleware = this.passport.authenticate(STRATEGIES, { session: false }, done) as Middleware;
      middleware({ headers }, {}, reject);
    });
    if (caller) return caller;
    throw new AppError('unauthenticated', 'Send an access token or an API key as Authorization: Bearer …');
  }

  private accessTokenStrategy(): JwtStrategy {
    return new JwtStrategy(
      {
        jwtFromRequest: ExtractJwt.fromAuthHeaderAsBearerToken(),
        algorithms: [TOKEN_ALGORITHM],
        issuer: TOKEN_ISSUER,
        audience: TOKEN_AUDIENCE,
        secretOrKeyProvider: (_request: unknown, token: string, done: KeyFound) => {
          this.tokens.publicKeyFor(token).then(
            (key) => done(null, key ?? undefined),
            (cause: unknown) =>
              done(new KeyLookupError('The key of a token could not be looked up.', { cause })),
          );
        },
      },
      (payload: unknown, done) => {
        this.findByClaims(payload).then((caller) => done(null, caller ?? false), done);
      },
    );
  }

  private apiKeyStrategy() {
    return new CustomStrategy((request, done) => {
      const key = bearerOf(request.headers);
      const found = key === null ? Promise.resolve(null) : this.apiKeys.findCaller(key);
      found.then((caller) => done(null, caller ?? undefined), done);
    });
  }

  /** Who signed in with a password may do whatever the account may. */
  private async findByClaims(payload: unknown): Promise<Caller | null> {
    const claims = ClaimsSchema.safeParse(payload).data;
    const account = claims && (await this.users.findActive(claims.sub));
    if (!account) return null;
    const { id: userId, isAdministrator } = account;
    const scopes = ScopeSchema.options.filter((scope) => scope !== 'admin' || isAdministrator);
    return {
      userId,
      apiKeyId: null,
      isAdministrator,
      scopes: new Set(scopes),
      expiresAt: claims.exp * MS_PER_S,
    };
  }
}

function bearerOf({ authorization, 'x-api-key': key }: Credentials): string | null {
  if (typeof key === 'string') return key;
  return typeof authorization === 'string' ? (BEARER.exec(authorization)?.[1] ?? null) : null;
}

/** The store failed, not the token: passport-jwt makes no difference. */
class KeyLookupError extends Error {}

type Middleware = (
  request: { headers: Credentials },
  response: object,
  next: (error: unknown) => void,
) => void;
type KeyFound = (error: unknown, key?: string) => void;
