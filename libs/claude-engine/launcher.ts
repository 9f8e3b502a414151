import { type SpawnOptions } from '@anthropic-ai/claude-agent-sdk';
import { type ChildProcessWithoutNullStreams } from 'node:child_process';
import { type LaunchFolders } from './engine-folders.js';
import { type KeyProxy } from './key-proxy.js';
import { type SupportedTool } from './supported-tools.js';

/**
 * What keeps a run from the rest of its machine: `bwrap`, a sandbox of its own without any network; `bwrap-host-network`, the
 * same with the machine's network; `file-tools`, only file tools exist and a hook checks their paths.
 */
export type Containment = 'bwrap' | 'bwrap-host-network' | 'file-tools';

/** Where a launch's CLI stands, in its own eyes. */
export interface LaunchSite {
  /** Its working directory. */
  workspace: string;
  /** What it must know of its place. */
  environment: Record<string, string>;
  /** Starts it: the Agent SDK's `spawnClaudeCodeProcess`. */
  spawn(options: SpawnOptions): ChildProcessWithoutNullStreams;
}

/** A way to start CLIs. */
export interface Launcher {
  readonly containment: Containment;
  readonly tools: readonly SupportedTool[];
  /** Whether its CLIs find the Messages API at a socket in the launch's folder; else it is at a port of the loopback interface. */
  readonly usesSocket: boolean;
  /** Whether a workspace may be renamed under its CLI, which sees it at a place of its own. */
  readonly canMoveWorkspaces: boolean;
  /** @param launch.workspace its real path */
  prepare(launch: { folders: LaunchFolders; workspace: string; proxy: KeyProxy }): Promise<LaunchSite>;
}
