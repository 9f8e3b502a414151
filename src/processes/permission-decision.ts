import type { PermissionAnswerRequest } from './process-inbox.schemas.js';

/** How a question for permission was decided. */
export interface PermissionDecision extends PermissionAnswerRequest {
  /** Whoever answered; null where nobody has. */
  by: string | null;
  /** Why nobody has answered. */
  reason?: 'expired' | 'withdrawn';
}

/** Nobody needs an answer any more. */
export const WITHDRAWN: PermissionDecision = { decision: 'deny', by: null, reason: 'withdrawn' };

/** What the row of a question says. */
export const decisionIn = ({
  payload,
  userId,
}: {
  payload: unknown;
  userId: string | null;
}): PermissionDecision => ({
  ...(payload as Omit<PermissionDecision, 'by'>),
  by: userId,
});

/** What the log says of it. */
export const toResolved = (permissionId: string, decided: PermissionDecision) => ({
  type: 'permission_resolved' as const,
  permissionId,
  decision: decided.decision,
  by: decided.by,
  reason: decided.reason ?? ('answered' as const),
  message: decided.message ?? null,
  updatedInput: decided.updatedInput ?? null,
});
