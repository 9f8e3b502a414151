import {
  type HookCallbackMatcher,
  type McpServerConfig,
  type PreToolUseHookInput,
} from '@anthropic-ai/claude-agent-sdk';
import { type SupportedTool } from './supported-tools.js';

/** A server of tools, as `.mcp.json` of Claude Code has it. `env` and `headers` may hold secrets. */
type McpServer =
  | { type: 'stdio'; command: string; args?: string[] | undefined; env?: Record<string, string> | undefined }
  | { type: 'http' | 'sse'; url: string; headers?: Record<string, string> | undefined };

/** By name: letters, digits, `-`, and single `_` between them, so that a tool's name has one meaning. */
export type McpServers = Readonly<Record<string, McpServer>>;

const PREFIX = 'mcp__';

/** The name for all tools of a server. */
export const mcpToolsOf = (server: string) => `${PREFIX}${server}`;

/** Whether a name is one of tools of an MCP server: `mcp__<server>__<tool>`, or `mcp__<server>` for all of them. */
export const isMcpTool = (name: string) => name.startsWith(PREFIX);

/** Whether a tool is among these, `mcp__<server>` standing for every tool of its server. */
export function isAmongTools(offered: readonly string[], name: string): boolean {
  return offered.some(
    (one) => one === name || (isMcpTool(one) && name.startsWith(`${one}__`) && name.length > one.length + 2),
  );
}

/** What an engine offers: tools of the CLI, and servers of further ones. */
export interface ToolOffer {
  tools: readonly SupportedTool[];
  mcpServers: McpServers;
}

/** The names of what is offered. */
export function toolNames({ tools, mcpServers }: ToolOffer): string[] {
  return [...tools, ...Object.keys(mcpServers).map(mcpToolsOf)];
}

/** The servers of which somebody may use a tool. @param asked the names in a request; undefined where it does not say */
export function serversFor(servers: McpServers, asked: readonly string[] | undefined): McpServers {
  if (!asked) return servers;
  const isAsked = (server: string) => asked.some((name) => isAmongTools([mcpToolsOf(server)], name));
  return Object.fromEntries(Object.entries(servers).filter(([server]) => isAsked(server)));
}

/** As the Agent SDK takes them. The model's first request is to have their tools: the CLI waits for them, 5 s at most. */
export function sdkServers(servers: McpServers): Record<string, McpServerConfig> {
  const given = Object.entries(servers).map(([name, server]) => [name, { ...server, alwaysLoad: true }]);
  return Object.fromEntries(given) as Record<string, McpServerConfig>;
}

/** What the CLI reads of servers by itself, without a name of theirs that could be allowed or refused. */
export const RESOURCE_TOOLS = [
  'ListMcpResourcesTool',
  'ReadMcpResourceTool',
  'ReadMcpResourceDirTool',
] as const;

/**
 * Refuses the tools of servers that a request has not named: the CLI can leave out a server, but not all of its tools but one. If
 * the hook itself fails, the call is blocked.
 */
export function mcpToolsHook(asked: readonly string[]): HookCallbackMatcher {
  return {
    matcher: `${PREFIX}.*`,
    onFailure: 'block',
    hooks: [
      (hook) => {
        const { tool_name: tool } = hook as PreToolUseHookInput;
        if (!isMcpTool(tool) || isAmongTools(asked, tool)) return Promise.resolve({});
        return Promise.resolve({
          hookSpecificOutput: {
            hookEventName: 'PreToolUse',
            permissionDecision: 'deny',
            permissionDecisionReason: `The tool ${tool} is not available.`,
          },
        });
      },
    ],
  };
}

/** Those that a place reaches. `left`: the others, and why. */
export function reachableServers(
  servers: McpServers,
  containment: 'bwrap' | 'bwrap-host-network' | 'file-tools',
): { reachable: McpServers; left: { servers: string[]; reason: string } | null } {
  const obstacle = ({ type }: McpServer) => {
    if (containment === 'file-tools') return 'There is no sandbox to run them in.';
    return containment === 'bwrap' && type !== 'stdio' ? 'The sandbox has no network.' : null;
  };
  const judged = Object.entries(servers).map(([name, server]) => ({
    name,
    server,
    reason: obstacle(server),
  }));
  const left = judged.filter(({ reason }) => reason !== null);
  return {
    reachable: Object.fromEntries(
      judged.filter(({ reason }) => reason === null).map(({ name, server }) => [name, server]),
    ),
    left: left.length === 0 ? null : { servers: left.map(({ name }) => name), reason: left[0]?.reason ?? '' },
  };
}

/** What must not be told: values of variables and headers. */
export function secretsOf(servers: McpServers): string[] {
  return Object.values(servers).flatMap((server) =>
    Object.values((server.type === 'stdio' ? server.env : server.headers) ?? {}),
  );
}
