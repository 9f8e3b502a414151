import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bwrapArguments, INNER_UID } from './bwrap-arguments.js';
import { type LaunchFolders } from './engine-folders.js';
import { type KeyProxy, SOCKET_NAME } from './key-proxy.js';
import { type Containment, type Launcher, type LaunchSite } from './launcher.js';
import { spawnLeader } from './plain-launcher.js';
import { SUPPORTED_TOOLS } from './supported-tools.js';

const runFile = promisify(execFile);

/** Where things are in a sandbox: the same in each, so that nothing tells one from another. */
const WORKSPACE = '/workspace';
const CLI = '/opt/claude/claude';
const RUN_LIMITED = '/opt/claude/run-limited';
const SOCKET = '/run/claude/messages.sock';

/** User ids that nobody has: above those of people and of containers' ranges as they are usually given. */
const [FIRST_UID, LAST_UID] = [0x6000_0000, 0x7000_0000];
/** What one program may have of memory, in KiB. The CLI itself has no such limit: it reserves gigabytes that it never uses. */
const PROGRAM_MEMORY_KIB = 2 * 1024 * 1024;

/** Root in a user namespace is, to the kernel's settings, the machine's root: they must not be within reach. */
const LOOK_AROUND = `
  test -x ${CLI} || { echo 'not every user may run the CLI' >&2; exit 1; }
  test ! -w /proc/sys/kernel/core_pattern || { echo 'its root would be the root of the machine' >&2; exit 1; }
`;

export interface BwrapOptions {
  bwrapPath: string;
  cliPath: string;
  network: 'none' | 'host';
  /** Folders that no sandbox shows, wherever they are. */
  hidden: readonly string[];
  /**
   * `own-user`: we are root and make each workspace's CLIs a user of their own. `user-namespace`: the CLIs are, to the
   * machine, who we are.
   */
  identity: 'own-user' | 'user-namespace';
}

/** Starts each CLI in a sandbox of its own: sees the system, its workspace, its config folder, and nothing else. */
export class BwrapLauncher implements Launcher {
  readonly containment: Containment;
  readonly tools = SUPPORTED_TOOLS;
  readonly usesSocket = true;
  readonly canMoveWorkspaces = true;

  constructor(private readonly options: BwrapOptions) {
    this.containment = options.network === 'host' ? 'bwrap-host-network' : 'bwrap';
  }

  async prepare(launch: { folders: LaunchFolders; workspace: string; proxy: KeyProxy }): Promise<LaunchSite> {
    const command = await this.sandbox(launch);
    return {
      workspace: WORKSPACE,
      environment: {
        PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        TMPDIR: '/tmp',
        CLAUDE_CODE_SHELL_PREFIX: RUN_LIMITED,
        ANTHROPIC_UNIX_SOCKET: SOCKET,
        // Any name will do, but there must be one.
        ANTHROPIC_BASE_URL: 'http://messages-api',
      },
      spawn: ({ args, env }) => spawnLeader(this.options.bwrapPath, [...command, CLI, ...args], { env }),
    };
  }

  /** Looks around in a sandbox as it would be. @throws Error if there is none, or not one that holds */
  async probe(launch: { folders: LaunchFolders; workspace: string }): Promise<void> {
    const command = await this.sandbox(launch);
    const args = [...command, '/bin/sh', '-c', LOOK_AROUND];
    await runFile(this.options.bwrapPath, args, { env: {}, timeout: 10_000 });
  }

  private async sandbox({
    folders,
    workspace,
  }: {
    folders: LaunchFolders;
    workspace: string;
  }): Promise<string[]> {
    const uid = this.options.identity === 'own-user' ? await ownerOf(workspace) : null;
    if (uid !== null) await giveTo(uid, folders.config);
    const files = await writeFiles(folders.root, uid ?? INNER_UID);
    const { config, root } = folders;
    return bwrapArguments({
      uid,
      hasNetwork: this.options.network === 'host',
      hidden: this.options.hidden,
      readable: { ...files, [CLI]: this.options.cliPath, [SOCKET]: join(root, SOCKET_NAME) },
      writable: { [WORKSPACE]: workspace, [config]: config },
      workingDirectory: WORKSPACE,
    });
  }
}

/** Who the CLIs of a workspace are: whoever owns it. One that is still ours gets a new owner. */
async function ownerOf(workspace: string): Promise<number> {
  const { uid } = await stat(workspace);
  if (uid >= FIRST_UID && uid < LAST_UID) return uid;
  const owner = randomInt(FIRST_UID, LAST_UID);
  await giveTo(owner, workspace);
  return owner;
}

/** The folder and all that we have put into it. Links are not followed. */
async function giveTo(uid: number, folder: string): Promise<void> {
  await runFile('/usr/bin/chown', ['-hR', `${uid}:${uid}`, folder]);
}

/** Files of the system as a sandbox has them, by their place in it. */
async function writeFiles(folder: string, uid: number): Promise<Record<string, string>> {
  const contents = {
    '/etc/passwd': `claude:x:${uid}:${uid}::/workspace:/bin/bash\n`,
    '/etc/group': `claude:x:${uid}:\n`,
    [RUN_LIMITED]: `#!/bin/bash\nulimit -d ${PROGRAM_MEMORY_KIB}\nexec /bin/bash -c "$1"\n`,
  };
  const written = Object.entries(contents).map(async ([place, text]) => {
    const path = join(folder, place.slice(place.lastIndexOf('/') + 1));
    await writeFile(path, text, { mode: 0o755 });
    return [place, path] as const;
  });
  return Object.fromEntries(await Promise.all(written));
}
