import type { Scope } from './access.schemas.js';

/** Who calls, as the guard found it. */
export interface Caller {
  readonly userId: string;
  /** The API key that was sent; null for an access token. */
  readonly apiKeyId: string | null;
  readonly isAdministrator: boolean;
  readonly scopes: ReadonlySet<Scope>;
  /** When the credentials end; milliseconds since 1970. */
  readonly expiresAt: number | null;
}
