import { type CanUseTool } from '@anthropic-ai/claude-agent-sdk';

/** A tool call that nothing has allowed. */
export interface PermissionQuestion {
  toolUseId: string;
  tool: string;
  input: Record<string, unknown>;
  /** Aborts when nobody needs the answer any more: the turn was stopped. */
  signal: AbortSignal;
}

export type PermissionAnswer =
  /** `updatedInput` takes the place of the whole input; what is not an input of the tool, the CLI tells the model. */
  | { decision: 'allow'; updatedInput?: Record<string, unknown> | undefined }
  /** `message` is what the model is told. */
  | { decision: 'deny'; message: string };

/** Asks whoever the run belongs to, and waits for the answer as long as it takes. Where it rejects, the call is refused. */
export type AskPermission = (question: PermissionQuestion) => Promise<PermissionAnswer>;

const UNANSWERED = 'Nobody could be asked for permission.';

/**
 * The Agent SDK's way to ask.
 * @param hold stops the clocks of the run while somebody thinks; called again, they go on
 * @param refusalOf why the call may not run whatever is answered, in words for the model; null where it may
 */
export function permissionCallback(
  ask: AskPermission,
  {
    hold,
    refusalOf,
  }: {
    hold: () => () => void;
    refusalOf: (tool: string, input: Record<string, unknown>) => Promise<string | null>;
  },
): CanUseTool {
  return async (tool, input, { signal, toolUseID: toolUseId }) => {
    const release = hold();
    try {
      // The line of the tool call is on its way to the reader, who should see it first.
      await new Promise(setImmediate);
      const answer = await ask({ toolUseId, tool, input, signal });
      if (answer.decision === 'deny') return { behavior: 'deny', message: answer.message };
      const { updatedInput = input } = answer;
      // The hook has seen the input of the model, and that some time ago.
      const refusal = await refusalOf(tool, updatedInput);
      return refusal === null ? { behavior: 'allow', updatedInput } : { behavior: 'deny', message: refusal };
    } catch {
      return { behavior: 'deny', message: UNANSWERED };
    } finally {
      release();
    }
  };
}
