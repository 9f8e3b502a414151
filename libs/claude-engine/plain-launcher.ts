import { type SpawnOptions } from '@anthropic-ai/claude-agent-sdk';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { giveWay } from './cpu-priority.js';
import { type LaunchFolders } from './engine-folders.js';
import { type KeyProxy } from './key-proxy.js';
import { type Launcher, type LaunchSite } from './launcher.js';
import { CONTAINED_TOOLS } from './supported-tools.js';

/** Starts CLIs without a sandbox. */
export const plainLauncher: Launcher = {
  containment: 'file-tools',
  tools: CONTAINED_TOOLS,
  usesSocket: false,
  canMoveWorkspaces: false,
  prepare: (launch) => Promise.resolve(plainSite(launch)),
};

function plainSite(launch: { folders: LaunchFolders; workspace: string; proxy: KeyProxy }): LaunchSite {
  const { temporary } = launch.folders;
  return {
    workspace: launch.workspace,
    environment: {
      // Nothing is found in it: the CLI would run `git` in the workspace, on whatever configuration lies there, and send what
      // it says of a repository further up.
      PATH: '/nonexistent',
      TMPDIR: temporary,
      CLAUDE_CODE_TMPDIR: temporary,
      ANTHROPIC_BASE_URL: launch.proxy.url,
    },
    spawn: ({ command, args, cwd, env }) => {
      const cli = spawnLeader(command, args, { cwd, env });
      if (cli.pid !== undefined) giveWay(cli.pid);
      return cli;
    },
  };
}

/**
 * Starts a CLI at the head of a process group of its own. Its end is the launch's business: the SDK's `signal` is not passed
 * on, for it would reach the head of the group alone.
 */
export function spawnLeader(
  command: string,
  args: readonly string[],
  options: Pick<SpawnOptions, 'cwd' | 'env'>,
): ChildProcessWithoutNullStreams {
  return spawn(command, args, { ...options, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
}
