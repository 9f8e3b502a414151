import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { lchown, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bwrapArguments, INNER_UID, programArguments } from './bwrap-arguments.js';
import { TUNING } from './cli-environment.js';
import { GIVE_WAY } from './cpu-priority.js';
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
const API_FOLDER = '/run/claude';
const SOCKET = `${API_FOLDER}/messages.sock`;
const INNER_BWRAP = '/opt/claude/bwrap';
/** Of the programs that tools start: gone with the launch, and no larger than what is temporary. */
const HOME = '/home/claude';
/** The CLI listens there for others of its kind. */
const CLI_SOCKETS = '/tmp/cc-socks';
/** Variables of the CLI that they do not get. Without namespaces of their own they would find them in its memory. */
const WITHHELD = [
  'ANTHROPIC_API_KEY',
  'ANTHROPIC_UNIX_SOCKET',
  'ANTHROPIC_BASE_URL',
  'CLAUDE_CODE_MESSAGING_SOCKET',
  'CLAUDE_CODE_MESSAGING_TOKEN',
];

/** User ids that nobody has: above those of people and of containers' ranges as they are usually given. */
const [FIRST_UID, LAST_UID] = [0x6000_0000, 0x7000_0000];
/** What one program may have of memory, in KiB. The CLI itself has no such limit: it reserves gigabytes that it never uses. */
const PROGRAM_MEMORY_KIB = 2 * 1024 * 1024;

/** Root in a user namespace is, to the kernel's settings, the machine's root: they must not be within reach. */
const LOOK_AROUND = `
  test -x ${CLI} || { echo 'not every user may run the CLI' >&2; exit 1; }
  test ! -w /proc/sys/kernel/core_pattern || { echo 'its root would be the root of the machine' >&2; exit 1; }
`;
const LOOK_AROUND_INSIDE = `${RUN_LIMITED} 'test ! -e ${SOCKET} && test -d /proc/self && ! unshare -U true'`;

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
  /**
   * Whether the programs that tools start have namespaces of their own inside the sandbox, so that they reach neither the CLI
   * nor the Messages API. By which bubblewrap: its file is bound into the sandbox.
   */
  separation: { bwrapPath: string } | null;
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
    const look = this.options.separation ? `${LOOK_AROUND}${LOOK_AROUND_INSIDE}` : LOOK_AROUND;
    const args = [...command, '/bin/sh', '-c', look];
    await runFile(this.options.bwrapPath, args, { env: {}, timeout: 10_000 });
  }

  private async sandbox({
    folders,
    workspace,
  }: {
    folders: LaunchFolders;
    workspace: string;
  }): Promise<string[]> {
    const { identity, network, hidden, cliPath, separation } = this.options;
    const { config, root } = folders;
    const uid = identity === 'own-user' ? await ownerOf(workspace) : null;
    if (uid !== null) await giveTo(uid, config);
    const innerUid = uid ?? INNER_UID;
    const program = separation
      ? programArguments({
          ...{ uid: innerUid, readable: [config], hidden: [API_FOLDER, CLI_SOCKETS], home: HOME },
        })
      : null;
    const files = await writeFiles(root, innerUid, program);
    return bwrapArguments({
      ...{ uid, hidden, hasNetwork: network === 'host', programHome: separation && HOME },
      readable: {
        ...files,
        [CLI]: cliPath,
        [SOCKET]: join(root, SOCKET_NAME),
        ...(separation ? { [INNER_BWRAP]: separation.bwrapPath } : {}),
      },
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
  // Once more, for what was put into it before it was seen to be theirs: the folder itself is given last.
  await giveTo(owner, workspace);
  return owner;
}

/** The folder and all that we have put into it. Links are not followed. */
async function giveTo(uid: number, folder: string): Promise<void> {
  // Most are empty, and a program costs a server of some size tens of milliseconds to start.
  if ((await readdir(folder)).length === 0) await lchown(folder, uid, uid);
  else await runFile('/usr/bin/chown', ['-hR', `${uid}:${uid}`, folder]);
}

/** Files of the system as a sandbox has them, by their place in it. @param program what a program is started by, if by anything */
async function writeFiles(
  folder: string,
  uid: number,
  program: readonly string[] | null,
): Promise<Record<string, string>> {
  const enter = program ? [INNER_BWRAP, ...program.map(quoted), '--chdir', '"$PWD"', '--'] : [];
  // Not left to bubblewrap: the first process of the namespace would still show them.
  const withheld = [...Object.keys(TUNING), ...(program ? WITHHELD : [])].join(' ');
  const command = [...enter, '/bin/bash', '-c', '"$1"'].join(' ');
  const contents = {
    '/etc/passwd': `claude:x:${uid}:${uid}::/workspace:/bin/bash\n`,
    '/etc/group': `claude:x:${uid}:\n`,
    [RUN_LIMITED]: `#!/bin/bash\n${GIVE_WAY}\nulimit -d ${PROGRAM_MEMORY_KIB}\nunset ${withheld}\nexec ${command}\n`,
  };
  const written = Object.entries(contents).map(async ([place, text]) => {
    const path = join(folder, place.slice(place.lastIndexOf('/') + 1));
    await writeFile(path, text, { mode: 0o755 });
    return [place, path] as const;
  });
  return Object.fromEntries(await Promise.all(written));
}

const quoted = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;
