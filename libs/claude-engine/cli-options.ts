import { type CanUseTool, type Options } from '@anthropic-ai/claude-agent-sdk';
import { type EngineRequest, type PermissionMode } from './claude-engine.js';
import { containmentHook } from './path-containment.js';
import { type Containment } from './launcher.js';
import {
  isAmongTools,
  isMcpTool,
  mcpToolsHook,
  RESOURCE_TOOLS,
  sdkServers,
  serversFor,
  type ToolOffer,
  toolNames,
} from './mcp-servers.js';
import { type JsonSchema } from './plain-schema.js';
import { CHANGING_TOOLS } from './supported-tools.js';

const PERMISSION_MODES: Record<PermissionMode, Options['permissionMode']> = {
  deny: 'dontAsk',
  ask: 'default',
  acceptEdits: 'acceptEdits',
  plan: 'plan',
};

/** What a request means to the Agent SDK. The launch adds where it runs: environment, executable, spawning. */
export function cliOptions(
  request: EngineRequest,
  place: {
    workspace: string;
    containment: Containment;
    offer: ToolOffer;
    defaultModel: string | undefined;
    /** What stands for the request's schema: see schemaForModel. */
    schema: JsonSchema | null;
    /** Asks for what nothing allows; undefined where nobody is to be asked. */
    canUseTool: CanUseTool | undefined;
  },
): Options {
  const { workspace, containment, offer, schema, canUseTool } = place;
  const { maxTurns, maxBudgetUsd, model = place.defaultModel } = request;
  const offered = toolNames(offer);
  const isOffered = (name: string) => isAmongTools(offered, name);
  const mcpServers = sdkServers(serversFor(offer.mcpServers, request.tools));
  const hooks = [
    ...(containment === 'file-tools' ? [containmentHook(workspace)] : []),
    ...(request.tools?.some(isMcpTool) ? [mcpToolsHook(request.tools)] : []),
  ];
  return {
    cwd: workspace,
    // A prompt is a command language otherwise: `@file` mentions and slash commands would be obeyed.
    verbatimPrompts: true,
    // What lies in a workspace configures nothing.
    settingSources: [],
    strictMcpConfig: true,
    includePartialMessages: true,
    permissionMode: PERMISSION_MODES[request.permissionMode],
    // Where nobody answers, what would ask is refused at once.
    ...(canUseTool ? { canUseTool } : { permissionPrompts: 'none' }),
    tools: (request.tools ?? offer.tools).filter((name) => isOffered(name) && !isMcpTool(name)),
    // Not on the command line: their variables and headers may be secrets.
    ...(Object.keys(mcpServers).length === 0 ? {} : { mcpServers, mcpServersDelivery: 'initialize' }),
    allowedTools: allowedTools(request).filter(isOffered),
    disallowedTools: [
      ...(request.disallowedTools ?? []).filter(isOffered),
      ...(Object.keys(mcpServers).length === 0 ? [] : RESOURCE_TOOLS),
    ],
    ...(hooks.length === 0 ? {} : { hooks: { PreToolUse: hooks } }),
    systemPrompt: systemPrompt(request),
    ...(model === undefined ? {} : { model }),
    ...(maxTurns === undefined ? {} : { maxTurns }),
    ...(maxBudgetUsd === undefined ? {} : { maxBudgetUsd }),
    ...(schema === null ? {} : { outputFormat: { type: 'json_schema', schema } }),
  };
}

function allowedTools({ allowedTools: names = [], permissionMode }: EngineRequest): string[] {
  // An approval in advance would outrank the plan.
  return permissionMode === 'plan' ? names.filter((name) => !CHANGING_TOOLS.has(name)) : names;
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
