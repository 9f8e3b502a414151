import { lstatSync } from 'node:fs';
import { dirname } from 'node:path';
import { GIVE_WAY, NICELY } from './cpu-priority.js';

/** What a sandbox shows of the machine, and lets its CLI do. */
export interface SandboxPlan {
  /** The user that the CLI really is, outside as well; null: ours, in a user namespace. Only root can choose one. */
  uid: number | null;
  hasNetwork: boolean;
  /** Paths of the machine that can be read, by the place where they are. */
  readable: Readonly<Record<string, string>>;
  /** The same, to be written as well. */
  writable: Readonly<Record<string, string>>;
  /** Folders that nothing is to be seen of, where the system's own folder would show them. */
  hidden: readonly string[];
  workingDirectory: string;
  /** Where its programs are at home, if they are to get namespaces of their own beneath it: see programArguments. */
  programHome: string | null;
}

/** How the programs that tools start are kept from the CLI that starts them. */
export interface ProgramPlan {
  /** The user that they are, in their namespace as in the sandbox. */
  uid: number;
  /** What they can read, and the CLI can write. */
  readable: readonly string[];
  /** What they see nothing of. */
  hidden: readonly string[];
  home: string;
}

const MIB = 1024 * 1024;
const TEMPORARY_BYTES = 256 * MIB;
/** Of the machine's memory and process table: the sandbox has no say in those. */
const LIMITS = ['--nproc=512', `--fsize=${2048 * MIB}`, '--core=0'];
/** Who has used up the memory is ended by the kernel: rather the sandbox than the server. */
const OUT_OF_MEMORY_SCORE = '500';

const SYSTEM_FOLDERS = ['bin', 'sbin', 'lib', 'lib32', 'lib64', 'libx32'];
const SYSTEM_FILES = [
  '/etc/alternatives',
  '/etc/ca-certificates',
  '/etc/ld.so.cache',
  '/etc/localtime',
  '/etc/pki/tls/certs',
  '/etc/ssl/certs',
  '/etc/ssl/openssl.cnf',
];
const NETWORK_FILES = [
  '/etc/hosts',
  '/etc/nsswitch.conf',
  '/etc/protocols',
  '/etc/resolv.conf',
  '/etc/services',
];

/** The user id that a CLI has in a user namespace. */
export const INNER_UID = 1000;

/** Bubblewrap's arguments, up to the program that is to run in the sandbox. */
export function bwrapArguments(plan: SandboxPlan): string[] {
  return [
    ...['--die-with-parent', '--new-session', '--hostname', 'sandbox', '--cap-drop', 'ALL'],
    ...namespaces(plan),
    ...system(plan),
    ...Object.entries(plan.readable).flatMap(([place, path]) => [
      ...parents(place),
      '--ro-bind',
      path,
      place,
    ]),
    ...Object.entries(plan.writable).flatMap(([place, path]) => [...parents(place), '--bind', path, place]),
    ...(needsUncoveredProc(plan)
      ? [...parents(SEALED), '--perms', '0700', '--dir', SEALED, '--dir', `${SEALED}/proc`]
      : []),
    // Last: until then places are made in them.
    ...['--remount-ro', '/dev', '--remount-ro', '/', '--chdir', '/'],
    '--',
    ...['/bin/sh', '-c', inSession(plan), 'sh'],
    ...asUser(plan.uid),
    // Only now is it somebody who may enter there.
    ...['/usr/bin/env', `--chdir=${plan.workingDirectory}`],
    ...['/usr/bin/choom', '-n', OUT_OF_MEMORY_SCORE, '--', ...NICELY, '/usr/bin/prlimit', ...LIMITS, '--'],
  ];
}

/**
 * Bubblewrap's arguments inside a sandbox, up to the program. What a tool starts is the CLI's own user: in the CLI's own
 * namespace of processes it could take over its output, its memory and its token.
 */
export function programArguments({ uid, readable, hidden, home }: ProgramPlan): string[] {
  return [
    ...['--unshare-user', '--disable-userns', '--uid', String(uid), '--gid', String(uid)],
    ...['--unshare-pid', '--die-with-parent', '--dev-bind', '/', '/', '--proc', '/proc'],
    ...readable.flatMap((path) => ['--ro-bind', path, path]),
    ...hidden.flatMap((path) => ['--perms', '0700', '--size', '4096', '--tmpfs', path, '--remount-ro', path]),
    ...['--setenv', 'HOME', home],
  ];
}

/**
 * The kernel lets nobody mount a new /proc who sees parts of the old one covered, as bubblewrap covers them where it is root.
 * So there is another one, where nobody comes to it.
 */
const SEALED = '/run/sealed';
const MOUNT_UNCOVERED_PROC = `/usr/bin/mount -t proc -o nosuid,nodev,noexec proc ${SEALED}/proc`;

/** What is still to be done in the session that bubblewrap has begun, before it is given to the CLI. */
const inSession = (plan: SandboxPlan) =>
  `${GIVE_WAY}; ${needsUncoveredProc(plan) ? `${MOUNT_UNCOVERED_PROC} && ` : ''}exec "$@"`;

function needsUncoveredProc({ uid, programHome }: SandboxPlan): boolean {
  return programHome !== null && uid !== null;
}

function namespaces(plan: SandboxPlan): string[] {
  const { uid, hasNetwork } = plan;
  const own = ['--unshare-ipc', '--unshare-pid', '--unshare-uts', '--unshare-cgroup-try'];
  if (!hasNetwork) own.push('--unshare-net');
  if (uid !== null) {
    const forProc = needsUncoveredProc(plan) ? ['--cap-add', 'CAP_SYS_ADMIN'] : [];
    return [...own, '--cap-add', 'CAP_SETUID', '--cap-add', 'CAP_SETGID', ...forProc];
  }
  return [...own, '--unshare-user', '--uid', String(INNER_UID), '--gid', String(INNER_UID)];
}

/** Root becomes somebody who owns nothing else. With that the capabilities go that it takes. */
function asUser(uid: number | null): string[] {
  if (uid === null) return [];
  return ['/usr/bin/setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--inh-caps=-all', '--'];
}

function system({ hasNetwork, hidden, programHome }: SandboxPlan): string[] {
  const files = hasNetwork ? [...SYSTEM_FILES, ...NETWORK_FILES] : SYSTEM_FILES;
  return [
    ...['--ro-bind', '/usr', '/usr', ...SYSTEM_FOLDERS.flatMap(systemFolder)],
    ...hidden
      .filter((path) => path.startsWith('/usr/'))
      .flatMap((path) => ['--tmpfs', path, '--remount-ro', path]),
    ...['--perms', '0755', '--dir', '/etc'],
    ...files.flatMap((file) => [...parents(file), '--ro-bind-try', file, file]),
    ...['--proc', '/proc', '--dev', '/dev'],
    ...['/dev/shm', '/tmp', ...(programHome === null ? [] : [programHome])].flatMap((place) => [
      ...parents(place),
      ...['--perms', '1777', '--size', String(TEMPORARY_BYTES), '--tmpfs', place],
    ]),
  ];
}

/** Most systems keep all of them in /usr, and have links there. */
function systemFolder(name: string): string[] {
  const stat = lstatSync(`/${name}`, { throwIfNoEntry: false });
  if (!stat) return [];
  return stat.isSymbolicLink()
    ? ['--symlink', `usr/${name}`, `/${name}`]
    : ['--ro-bind', `/${name}`, `/${name}`];
}

/** The folders above a place, so that whoever the CLI is can pass: bwrap would make them for root alone. */
function parents(place: string): string[] {
  const parent = dirname(place);
  return parent === '/' ? [] : [...parents(parent), '--perms', '0755', '--dir', parent];
}
