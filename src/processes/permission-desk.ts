import { setTimeout as sleep } from 'node:timers/promises';
import { v7 as uuid } from 'uuid';
import type { AskPermission, PermissionAnswer } from '../../libs/claude-engine/index.js';
import type { LiveRun } from './lease-keeper.js';
import { type PermissionDecision, toResolved, WITHDRAWN } from './permission-decision.js';
import type { PermissionAnswerRequest } from './process-inbox.schemas.js';
import type { ProcessCommand, ProcessCommandsRepository } from './process-commands.repository.js';
import { whileOurs } from './while-ours.js';

const EXPIRED = 'Nobody answered the question for permission in time. Go on without this tool call.';
const DENIED = 'The user has refused permission for this tool call.';

/** The questions for permission of one run: asked in its log, decided by its inbox, by time, or by the end of the turn. */
export class PermissionDesk {
  private readonly open = new Map<string, (decided: PermissionDecision) => void>();

  constructor(
    private readonly run: LiveRun,
    private readonly commands: ProcessCommandsRepository,
    /** How long a question stays open. */
    private readonly timeoutMs: number,
  ) {
    run.inbox.on('permission', (command) => this.answer(command));
  }

  readonly ask: AskPermission = async ({ toolUseId, tool, input, signal }) => {
    const { log } = this.run;
    const permissionId = uuid();
    const patience = new AbortController();
    const answered = new Promise<PermissionDecision>((resolve) => this.open.set(permissionId, resolve));
    try {
      const expiresAt = new Date(Date.now() + this.timeoutMs).toISOString();
      await log.append({ type: 'permission_requested', permissionId, toolUseId, tool, input, expiresAt });
      const over = sleep(this.timeoutMs, 'expired' as const, {
        signal: AbortSignal.any([signal, patience.signal]),
      }).catch(() => 'withdrawn' as const);
      const first = await Promise.race([answered, over]);
      const decided = typeof first === 'string' ? await this.refuse(permissionId, first) : first;
      // What is left open when the run ends is closed with it.
      if (!log.isConcluding) await log.append(toResolved(permissionId, decided));
      return toAnswer(decided);
    } finally {
      patience.abort();
      this.open.delete(permissionId);
    }
  };

  /** An answer may have been taken in just before: then that is the decision. */
  private async refuse(permissionId: string, reason: 'expired' | 'withdrawn'): Promise<PermissionDecision> {
    const ask = () => this.commands.refuse(this.run, permissionId, reason);
    return (await whileOurs(this.run.log, ask)) ?? WITHDRAWN;
  }

  /** What nobody asks any more is decided already. */
  private answer({ permissionId, payload, userId: by }: ProcessCommand): boolean {
    this.open.get(permissionId ?? '')?.({ ...(payload as PermissionAnswerRequest), by });
    return true;
  }
}

function toAnswer({ decision, reason, message, updatedInput }: PermissionDecision): PermissionAnswer {
  if (decision === 'allow') return { decision, updatedInput };
  return { decision, message: message ?? (reason === 'expired' ? EXPIRED : DENIED) };
}
