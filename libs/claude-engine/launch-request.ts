import { type Options } from '@anthropic-ai/claude-agent-sdk';
import { type EngineRequest } from './claude-engine.js';
import { cliOptions } from './cli-options.js';
import { type Launcher } from './launcher.js';

/** What of a request is fixed once its CLI has started. */
export interface LaunchRequest {
  /**
   * Two requests with one key can be answered by the same CLI. Null: by a CLI of its own alone, since the CLI counts over all
   * that it answers what the request limits, or gives its answer a shape.
   */
  key: string | null;
  options: (workspace: string) => Options;
}

/** Asks for a CLI of its own. */
const UNSHARED: readonly (keyof Options)[] = ['maxBudgetUsd', 'outputFormat'];

export function launchRequestOf(
  request: EngineRequest,
  { launcher, defaultModel }: { launcher: Launcher; defaultModel: string | undefined },
): LaunchRequest {
  const options = (workspace: string) => cliOptions(request, { workspace, launcher, defaultModel });
  const fixed = options('');
  const isShared = UNSHARED.every((name) => fixed[name] === undefined);
  return { key: isShared ? JSON.stringify(fixed) : null, options };
}
