import { SandboxUnavailableError } from '../libs/claude-engine/index.js';
import { DirectoryInUseError } from '../libs/embedded-services/index.js';
import { ConfigError } from './platform/config/config.js';
import { MigrationError } from './platform/prisma/migrations.js';
import { DatabaseAwayError } from './platform/prisma/start-patience.js';

/** Why the server did not start: a line for whoever can mend it, and the whole error only where nobody can tell. */
export function explainStartFailure(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof ConfigError || error instanceof DirectoryInUseError) return error.message;
  if (error instanceof MigrationError || error instanceof DatabaseAwayError)
    return `DATABASE_URL: ${error.message}`;
  if (error instanceof SandboxUnavailableError)
    return `CLAUDE_SANDBOX: there is no sandbox. ${error.message}`;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall === 'listen') return `HOST, PORT: cannot listen there (${code ?? error.message})`;
  if (code !== undefined && /^(28|3D)/.test(code)) return `DATABASE_URL: ${error.message}`;
  return error.stack ?? error.message;
}
