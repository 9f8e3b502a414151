import { z } from 'zod';

export const ScopeSchema = z
  .enum(['claude:execute', 'claude:read', 'keys:manage', 'admin'])
  .meta({ id: 'Scope', description: 'What credentials allow' });

export type Scope = z.output<typeof ScopeSchema>;
