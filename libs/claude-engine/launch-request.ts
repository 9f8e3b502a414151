import { type CanUseTool, type Options } from '@anthropic-ai/claude-agent-sdk';
import { type EngineRequest } from './claude-engine.js';
import { cliOptions } from './cli-options.js';
import { type Launcher } from './launcher.js';
import { isMcpTool, type ToolOffer } from './mcp-servers.js';
import { schemaForModel } from './output-schema.js';

/** What of a request is fixed once its CLI has started. */
export interface LaunchRequest {
  /**
   * Two requests with one key can be answered by the same CLI. Null: by a CLI of its own alone. The CLI counts over all that it
   * answers what such a request limits, gives all its answers one shape, asks one run for permission, or is steered.
   */
  key: string | null;
  /** @param workspace as the CLI sees it */
  options: (workspace: string) => Promise<Options>;
}

/** What the requests of one engine have in common. */
interface Common {
  launcher: Launcher;
  offer: ToolOffer;
  defaultModel: string | undefined;
}

/** Who asks, where the CLI can serve nobody else. */
interface Asker {
  /** The run has been told more than its prompt already. */
  isSteered: boolean;
  /** See cliOptions. */
  canUseTool: (workspace: string) => CanUseTool | undefined;
}

const NOBODY: Asker = { isSteered: false, canUseTool: () => undefined };

export function launchRequestOf(
  request: EngineRequest,
  { launcher, offer, defaultModel }: Common,
  { isSteered, canUseTool }: Asker = NOBODY,
): LaunchRequest {
  const { outputSchema, maxBudgetUsd, permissionMode } = request;
  const place = { containment: launcher.containment, offer, defaultModel };
  const isShared =
    !isSteered && outputSchema === undefined && maxBudgetUsd === undefined && permissionMode !== 'ask';
  const fixed = () => cliOptions(request, { ...place, workspace: '', schema: null, canUseTool: undefined });
  // Which tools of a server run is said by a hook, of which JSON tells nothing.
  const named = request.tools?.filter(isMcpTool).toSorted();
  return {
    key: isShared ? JSON.stringify([fixed(), named]) : null,
    options: async (workspace) =>
      cliOptions(request, {
        ...{ ...place, workspace },
        schema: outputSchema ? await schemaForModel(outputSchema) : null,
        canUseTool: canUseTool(workspace),
      }),
  };
}
