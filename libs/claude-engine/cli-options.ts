import { type Options } from '@anthropic-ai/claude-agent-sdk';
import { type EngineRequest, type PermissionMode } from './claude-engine.js';
import { containmentHook } from './path-containment.js';
import { isSupportedTool, SUPPORTED_TOOLS, WRITING_TOOLS } from './supported-tools.js';

const PERMISSION_MODES: Record<PermissionMode, Options['permissionMode']> = {
  deny: 'dontAsk',
  acceptEdits: 'acceptEdits',
  plan: 'plan',
};

/** What a request means to the Agent SDK. The launch adds where it runs: environment, executable, spawning. */
export function cliOptions(
  request: EngineRequest,
  { workspace, defaultModel }: { workspace: string; defaultModel: string | undefined },
): Options {
  const { maxTurns, model = defaultModel } = request;
  return {
    cwd: workspace,
    // A prompt is a command language otherwise: `@file` mentions and slash commands would be obeyed.
    verbatimPrompts: true,
    // What lies in a workspace configures nothing.
    settingSources: [],
    strictMcpConfig: true,
    includePartialMessages: true,
    permissionMode: PERMISSION_MODES[request.permissionMode],
    // Nobody answers: what would ask is refused at once.
    permissionPrompts: 'none',
    tools: (request.tools ?? SUPPORTED_TOOLS).filter(isSupportedTool),
    allowedTools: allowedTools(request),
    disallowedTools: (request.disallowedTools ?? []).filter(isSupportedTool),
    hooks: { PreToolUse: [containmentHook(workspace)] },
    systemPrompt: systemPrompt(request),
    ...(model === undefined ? {} : { model }),
    ...(maxTurns === undefined ? {} : { maxTurns }),
  };
}

function allowedTools({ allowedTools: names = [], permissionMode }: EngineRequest): string[] {
  const supported = names.filter(isSupportedTool);
  // An approval in advance would outrank the plan.
  return permissionMode === 'plan' ? supported.filter((name) => !WRITING_TOOLS.has(name)) : supported;
}

/** A conversation records the first prompt that does not say otherwise, and shows that in place of all later ones. */
const UNRECORDED = { snapshot: false };

function systemPrompt({
  systemPrompt: prompt,
  appendSystemPrompt: append,
}: EngineRequest): Options['systemPrompt'] {
  if (prompt !== undefined) {
    const whole = append === undefined ? prompt : `${prompt}\n\n${append}`;
    return { type: 'custom', prompt: whole, ...UNRECORDED };
  }
  return {
    type: 'preset',
    preset: 'claude_code',
    ...(append === undefined ? {} : { append, ...UNRECORDED }),
  };
}
