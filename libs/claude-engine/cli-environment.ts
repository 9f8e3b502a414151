import { type LaunchFolders } from './engine-folders.js';
import { LAUNCH_MARK } from './process-table.js';

export interface AnthropicAccess {
  /** Anthropic's own unless told. */
  baseUrl?: string;
  apiKey: string;
}

/** How the CLI reaches the Messages API. */
export interface NetworkAccess {
  httpsProxy?: string;
  noProxy?: string;
  /** Path of a PEM file with further certificate authorities. */
  extraCaCerts?: string;
}

export interface EnvironmentOptions {
  anthropic: AnthropicAccess;
  network?: NetworkAccess | undefined;
  /** How often the CLI repeats a failed request to the Messages API; its own default (10) unless told. */
  apiMaxRetries?: number | undefined;
}

/** The whole environment of a launch's CLI: made from this list, never from the server's own. */
export function cliEnvironment(
  launch: { id: string; folders: LaunchFolders },
  { anthropic, network = {}, apiMaxRetries }: EnvironmentOptions,
): Record<string, string> {
  const { config, temporary } = launch.folders;
  return defined({
    // Nothing is found in it: the CLI would run `git` in the workspace, on whatever configuration lies there, and send what it
    // says of a repository further up.
    PATH: '/nonexistent',
    CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS: '1',
    LANG: 'C.UTF-8',
    HOME: config,
    CLAUDE_CONFIG_DIR: config,
    TMPDIR: temporary,
    CLAUDE_CODE_TMPDIR: temporary,
    ANTHROPIC_BASE_URL: anthropic.baseUrl,
    ANTHROPIC_API_KEY: anthropic.apiKey,
    HTTPS_PROXY: network.httpsProxy,
    NO_PROXY: network.noProxy,
    NODE_EXTRA_CA_CERTS: network.extraCaCerts,
    CLAUDE_CODE_MAX_RETRIES: apiMaxRetries?.toString(),
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
    DISABLE_AUTOUPDATER: '1',
    CLAUDE_CODE_DISABLE_AUTO_MEMORY: '1',
    [LAUNCH_MARK]: launch.id,
  });
}

function defined(variables: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(variables).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}
