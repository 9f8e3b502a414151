import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { PLAIN_ENVIRONMENT } from './os-process.js';
import { type ServerCommand } from './server-process.js';

const run = promisify(execFile);

const NAMESPACE = ['unshare', '--user', '--map-user=65534', '--map-group=65534', '--'] as const;
const ACCOUNTS = ['postgres', 'nobody'] as const;

interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** How to run a program that refuses to be root. */
export interface UnprivilegedLauncher {
  command(file: string, args: readonly string[]): ServerCommand;
  /** Who must own what the program writes; `undefined`: whoever makes it. */
  readonly owner: Account | undefined;
}

/**
 * As an ordinary user there is nothing to do. Root steps into a user namespace, where it appears as `nobody` and still
 * owns its files; where namespaces are forbidden (most containers) the program becomes a real unprivileged account.
 * @param options.binary what it is to run
 * @param options.directory where it is to work; need not exist, its parent must
 * @throws Error naming what stands in the way and the ways out.
 */
export async function findUnprivilegedLauncher(options: {
  binary: string;
  directory: string;
  allowNamespace?: boolean;
}): Promise<UnprivilegedLauncher> {
  const { allowNamespace = true } = options;
  if (process.getuid?.() !== 0) return { command: plainCommand, owner: undefined };
  const barriers: string[] = [];
  for await (const launcher of candidates(allowNamespace)) {
    const barrier = await findBarrier(launcher, options);
    if (barrier === undefined) return launcher;
    barriers.push(barrier);
  }
  throw new Error(
    `PostgreSQL refuses to run as root, and nothing else is possible here: ${barriers.join('; ')}. ` +
      'Start as an ordinary user, choose a data directory every user may enter, or set DATABASE_URL.',
  );
}

function plainCommand(file: string, args: readonly string[]): ServerCommand {
  return { file, args, env: PLAIN_ENVIRONMENT };
}

async function* candidates(allowNamespace: boolean): AsyncGenerator<UnprivilegedLauncher> {
  const [unshare, ...unshareArgs] = NAMESPACE;
  if (allowNamespace) {
    yield {
      command: (file, args) => plainCommand(unshare, [...unshareArgs, file, ...args]),
      owner: { name: 'root in a user namespace', uid: 0, gid: 0 },
    };
  }
  for (const name of ACCOUNTS) {
    const account = await findAccount(name);
    if (!account) continue;
    const { uid, gid } = account;
    yield { command: (file, args) => ({ ...plainCommand(file, args), uid, gid }), owner: account };
  }
}

/** Root in a namespace has lost its privilege over files as well, so modes count for it too. */
async function findBarrier(
  launcher: UnprivilegedLauncher,
  paths: { binary: string; directory: string },
): Promise<string | undefined> {
  const { owner } = launcher;
  if (!owner) return undefined;
  for (const path of [dirname(paths.binary), dirname(paths.directory)]) {
    const closed = await findClosedDirectory(path, owner);
    if (closed !== undefined) return `${owner.name} may not enter ${closed}`;
  }
  const { file, args, ...as } = launcher.command(paths.binary, ['--version']);
  try {
    await run(file, args, as);
    return undefined;
  } catch {
    return `${owner.name} cannot run ${paths.binary}`;
  }
}

async function findClosedDirectory(path: string, account: Account): Promise<string | undefined> {
  const above = dirname(path) === path ? undefined : await findClosedDirectory(dirname(path), account);
  if (above !== undefined) return above;
  const { mode, uid, gid } = await stat(path);
  const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
  return (mode & bit) === 0 ? path : undefined;
}

async function findAccount(name: string): Promise<Account | undefined> {
  try {
    const id = async (flag: string) => Number((await run('id', [flag, name])).stdout);
    const account = { name, uid: await id('-u'), gid: await id('-g') };
    return account.uid > 0 ? account : undefined;
  } catch {
    return undefined;
  }
}
