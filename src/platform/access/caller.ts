import type { Scope } from './access.schemas.js';

/** Who calls, as the guard found it. */
export interface Caller {
  readonly userId: string;
  readonly isAdministrator: boolean;
  readonly scopes: ReadonlySet<Scope>;
  /** When the credentials end; milliseconds since 1970. */
  readonly expiresAt: number | null;
}
