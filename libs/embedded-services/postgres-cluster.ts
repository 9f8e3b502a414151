import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, chown, link, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { errorCode } from './os-process.js';
import { buildDirectory } from './partial-directory.js';
import { type PostgresBinaries } from './postgres-binaries.js';
import { type UnprivilegedLauncher } from './unprivileged.js';

const run = promisify(execFile);

/** A data directory that `initdb` has completed, and what it takes to serve it. */
export interface PostgresCluster {
  readonly data: string;
  readonly logFile: string;
  readonly password: string;
  readonly binaries: PostgresBinaries;
  readonly launcher: UnprivilegedLauncher;
}

interface ClusterPlace {
  directory: string;
  durable: boolean;
  binaries: PostgresBinaries;
  launcher: UnprivilegedLauncher;
  onProgress: (line: string) => void;
  signal: AbortSignal | undefined;
}

/**
 * Makes the data directory, or finds the one that is there.
 * @throws Error when it is another major version's, its password is lost, or `initdb` fails.
 */
export async function prepareCluster(place: ClusterPlace): Promise<PostgresCluster> {
  const { directory, binaries, launcher } = place;
  const data = join(directory, 'data');
  await letIn(directory, launcher);
  if (!isComplete(data)) {
    await setAside(data);
    place.onProgress(`Creating the PostgreSQL data directory ${data}`);
    await buildDirectory(data, (partial) => initialise(partial, place));
  }
  await checkVersion(data, binaries);
  await handOver(data, launcher);
  const password = await readPassword(directory);
  return { data, logFile: join(directory, 'postgres.log'), password, binaries, launcher };
}

function isComplete(data: string): boolean {
  return existsSync(join(data, 'PG_VERSION')) && existsSync(join(data, 'global/pg_control'));
}

/** Not ours to delete: ours appears complete, so somebody else's initdb was cut short, or its control file was lost. */
async function setAside(data: string): Promise<void> {
  const names = await readdir(data).catch(() => []);
  if (names.length > 0) await rename(data, `${data}.incomplete-${randomBytes(4).toString('hex')}`);
}

async function initialise(partial: string, place: ClusterPlace): Promise<string> {
  const { binaries, launcher, directory, durable, signal } = place;
  const { uid, gid } = launcher.owner ?? {};
  const passwordFile = `${partial}.password`;
  const args = ['-D', partial, '-U', 'postgres', '-A', 'scram-sha-256', '--pwfile', passwordFile];
  args.push('--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8');
  if (!durable) args.push('--no-sync');
  try {
    await writeFile(passwordFile, await createPassword(directory), { mode: 0o600 });
    if (uid !== undefined && gid !== undefined) {
      await chown(partial, uid, gid);
      await chown(passwordFile, uid, gid);
    }
    const { file, args: words, ...as } = launcher.command(binaries.initdb, args);
    await run(file, words, { ...as, signal });
    return partial;
  } catch (error) {
    signal?.throwIfAborted();
    const { stderr = '' } = error as { stderr?: string };
    throw new Error(`PostgreSQL could not make its data directory. ${stderr.trim()}`, { cause: error });
  } finally {
    await rm(passwordFile, { force: true });
  }
}

async function checkVersion(data: string, binaries: PostgresBinaries): Promise<void> {
  const [have, { stdout }] = await Promise.all([
    readFile(join(data, 'PG_VERSION'), 'utf8'),
    run(binaries.postgres, ['--version']),
  ]);
  const runs = /(\d+)/.exec(stdout)?.[1];
  if (have.trim() === runs) return;
  throw new Error(
    `${data} was made by PostgreSQL ${have.trim()} and this is PostgreSQL ${String(runs)}, which cannot read it. ` +
      'Export it with the version that made it, or choose another directory.',
  );
}

/** The directory stays its owner's; whoever PostgreSQL is may pass through to `data`, which is theirs. */
async function letIn(directory: string, { owner }: UnprivilegedLauncher): Promise<void> {
  if (owner && (await stat(directory)).uid !== owner.uid) await chmod(directory, 0o711);
}

/** The directory may come from a start in which PostgreSQL was another account. */
async function handOver(data: string, { owner }: UnprivilegedLauncher): Promise<void> {
  if (!owner || (await stat(data)).uid === owner.uid) return;
  await run('chown', ['-R', `${owner.uid}:${owner.gid}`, data]);
}

/** The first one made is everybody's: written aside and linked, so that nobody reads half of it. */
async function createPassword(directory: string): Promise<string> {
  const file = join(directory, 'password');
  const draft = `${file}.${randomBytes(4).toString('hex')}`;
  await writeFile(draft, `${randomBytes(24).toString('base64url')}\n`, { mode: 0o600 });
  try {
    await link(draft, file);
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error;
  } finally {
    await rm(draft);
  }
  return readPassword(directory);
}

async function readPassword(directory: string): Promise<string> {
  const file = join(directory, 'password');
  const password = await readFile(file, 'utf8').catch(() => '');
  if (password.trim() !== '') return password.trim();
  throw new Error(
    `The password of this PostgreSQL is lost: ${basename(file)} is missing from ${directory}. ` +
      'Put it back, or move the directory away to begin anew.',
  );
}
