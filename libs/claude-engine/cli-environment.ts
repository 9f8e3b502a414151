import { LAUNCH_MARK } from './process-table.js';

export interface AnthropicAccess {
  /** Anthropic's own unless told. */
  baseUrl?: string;
  apiKey: string;
}

/** How the Messages API is reached. */
export interface NetworkAccess {
  httpsProxy?: string;
  noProxy?: string;
  /** Path of a PEM file with further certificate authorities. */
  extraCaCerts?: string;
}

/**
 * For the CLI alone: it runs by Bun, which runs by JavaScriptCore, whose optimizing compilers cost more than they save in the few
 * turns of most CLIs (docs/adr/0030). The engine's options are no promise of Bun's, which does not start with one that it does not
 * know (https://github.com/oven-sh/bun/pull/38881): see `CliProbe`.
 */
export const TUNING: Readonly<Record<string, string>> = { BUN_JSC_useDFGJIT: '0' };

/** The whole environment of a launch's CLI: made from this list, never from the server's own. */
export function cliEnvironment(launch: {
  id: string;
  configFolder: string;
  /** What its launcher adds. */
  site: Record<string, string>;
  /** What it shows the Messages API for a key. */
  token: string;
  /** What of `TUNING` its CLI knows. */
  tuning: Readonly<Record<string, string>>;
  /** How often the CLI repeats a failed request to the Messages API; its own default (10) unless told. */
  apiMaxRetries: number | undefined;
}): Record<string, string> {
  return {
    ...launch.site,
    ...launch.tuning,
    CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS: '1',
    LANG: 'C.UTF-8',
    HOME: launch.configFolder,
    CLAUDE_CONFIG_DIR: launch.configFolder,
    ANTHROPIC_API_KEY: launch.token,
    ...(launch.apiMaxRetries === undefined ? {} : { CLAUDE_CODE_MAX_RETRIES: String(launch.apiMaxRetries) }),
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
    DISABLE_AUTOUPDATER: '1',
    CLAUDE_CODE_DISABLE_AUTO_MEMORY: '1',
    // A subagent in the background outlives the answer: the run would end without it, and the next would begin with its end.
    CLAUDE_CODE_DISABLE_BACKGROUND_TASKS: '1',
    [LAUNCH_MARK]: launch.id,
  };
}
