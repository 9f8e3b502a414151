import { generateKeyPairSync } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { JwtService } from '@nestjs/jwt';
import { v7 as uuid, validate } from 'uuid';
import { SigningKeysRepository } from './signing-keys.repository.js';

export const TOKEN_ALGORITHM = 'ES256';
export const TOKEN_ISSUER = 'claude-runner';
export const TOKEN_AUDIENCE = 'claude-runner-api';
const TOKEN_TYPE = 'at+jwt'; // RFC 9068
const TOKEN_LIFETIME_MS = 15 * 60 * 1000;
const MS_PER_S = 1000;

/** Signs access tokens, and finds the key that proves one. Every server on one database signs with the same key. */
@Injectable()
export class AccessTokens {
  private readonly publicKeys = new Map<string, string>();

  constructor(
    private readonly jwt: JwtService,
    private readonly keys: SigningKeysRepository,
  ) {}

  async issue(userId: string): Promise<{ token: string; expiresAt: Date }> {
    const { id, privateKey } = await this.keys.newestOr(makeSigningKey);
    const expiresAt = new Date(Date.now() + TOKEN_LIFETIME_MS);
    const token = await this.jwt.signAsync(
      { sub: userId, exp: Math.floor(expiresAt.getTime() / MS_PER_S) },
      {
        privateKey,
        algorithm: TOKEN_ALGORITHM,
        issuer: TOKEN_ISSUER,
        audience: TOKEN_AUDIENCE,
        jwtid: uuid(),
        header: { alg: TOKEN_ALGORITHM, kid: id, typ: TOKEN_TYPE },
      },
    );
    return { token, expiresAt };
  }

  /** The public key (PEM) that the token's header names, or null where the header is not one of ours. */
  async publicKeyFor(token: string): Promise<string | null> {
    const header = headerOf(token);
    if (header?.typ !== TOKEN_TYPE || !validate(header.kid)) return null;
    const id = header.kid as string;
    const known = this.publicKeys.get(id);
    if (known !== undefined) return known;
    const key = await this.keys.findById(id);
    if (key) this.publicKeys.set(id, key.publicKey);
    return key?.publicKey ?? null;
  }
}

function headerOf(token: string): { kid?: unknown; typ?: unknown } | null {
  try {
    const header: unknown = JSON.parse(Buffer.from(token.split('.', 1)[0] ?? '', 'base64url').toString());
    return typeof header === 'object' ? header : null;
  } catch {
    return null;
  }
}

function makeSigningKey() {
  return {
    id: uuid(),
    ...generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      publicKeyEncoding: { type: 'spki', format: 'pem' },
    }),
  };
}
