import { execFile } from 'node:child_process';
import { constants, existsSync } from 'node:fs';
import { access, mkdir, readdir, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { buildDirectory } from './partial-directory.js';

const run = promisify(execFile);

const APT_TIMEOUT_MS = 180_000;
const OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024;

type AptGet = (...args: string[]) => Promise<string>;

export interface PackageTools {
  readonly aptGet: string;
  readonly dpkgDeb: string;
}

/**
 * Unpacks a package of the distribution, signed as all of them (and what it needs that this machine lacks), into `target`, a
 * root of its own: no privilege, nothing installed, nothing started. Does nothing if it is there already.
 * @param options.packages the names to be tried in turn, each with those that belong to it
 * @param options.accept whether an unpacked root holds what was wanted.
 * @throws Error with the tool's last words when the archive cannot be reached or has nothing acceptable.
 */
export async function unpackDistributionPackage(options: {
  target: string;
  tools: PackageTools;
  packages: readonly (readonly [string, ...string[]])[];
  accept: (root: string) => Promise<boolean>;
  signal: AbortSignal | undefined;
}): Promise<void> {
  const { target, tools, packages, accept, signal } = options;
  if (existsSync(target)) return;
  await buildDirectory(target, async (work) => {
    const aptGet = await configureApt(work, tools.aptGet, signal);
    // one unreachable source among many is an error to apt and may be none to us: what counts is what can be had then
    let reason = await aptGet('update').then(() => 'no such package', lastLineOf);
    for (const names of packages) {
      const root = join(work, names[0]);
      try {
        await unpack({ names, root, aptGet, dpkgDeb: tools.dpkgDeb, signal });
        if (await accept(root)) return root;
        reason = `${names[0]} does not run here`;
      } catch (error) {
        signal?.throwIfAborted();
        reason = `${reason}; ${lastLineOf(error)}`;
      }
    }
    throw new Error(`The distribution's package could not be had: ${reason}`);
  });
}

/** What it takes to unpack one; undefined where the distribution is another. */
export async function findPackageTools(toolPath: string): Promise<PackageTools | undefined> {
  const [aptGet] = await findPrograms('apt-get', toolPath);
  const [dpkgDeb] = await findPrograms('dpkg-deb', toolPath);
  return aptGet !== undefined && dpkgDeb !== undefined ? { aptGet, dpkgDeb } : undefined;
}

/** The files of this name on a search path that can be run. */
export async function findPrograms(program: string, searchPath: string): Promise<string[]> {
  const found: string[] = [];
  for (const folder of searchPath.split(delimiter).filter((entry) => entry !== '')) {
    const file = join(folder, program);
    await access(file, constants.X_OK).then(
      () => found.push(file),
      () => undefined,
    );
  }
  return found;
}

/** An apt with lists and a cache of its own, and without the system's hooks, which would act on the system's. */
async function configureApt(work: string, aptGet: string, signal: AbortSignal | undefined): Promise<AptGet> {
  const [lists, cache, debs] = [join(work, 'lists'), join(work, 'cache'), join(work, 'debs')];
  for (const path of [join(lists, 'partial'), join(cache, 'archives/partial'), debs])
    await mkdir(path, { recursive: true });
  const settings = {
    'Dir::State::lists': lists,
    'Dir::Cache': cache,
    'APT::Sandbox::User': '',
    'Debug::NoLocking': 'true',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '2',
    'Acquire::http::Timeout': '20',
    'Acquire::https::Timeout': '20',
  };
  const hooks = ['Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success'].map(
    (hook) => `#clear APT::Update::${hook};`,
  );
  const lines = Object.entries(settings).map(([name, value]) => `${name} "${value}";`);
  const configuration = join(work, 'apt.conf');
  await writeFile(configuration, [...hooks, ...lines, ''].join('\n'));
  const limits = { signal, timeout: APT_TIMEOUT_MS, maxBuffer: OUTPUT_LIMIT_BYTES };
  return async (...args) =>
    (await run(aptGet, ['-qq', '-c', configuration, ...args], { cwd: debs, ...limits })).stdout;
}

async function unpack(options: {
  names: readonly string[];
  root: string;
  aptGet: AptGet;
  dpkgDeb: string;
  signal: AbortSignal | undefined;
}): Promise<void> {
  const { names, root, aptGet, dpkgDeb, signal } = options;
  const plan = await aptGet('--simulate', '--no-install-recommends', 'install', ...names);
  const missing = Array.from(plan.matchAll(/^Inst (\S+)/gm), ([, name]) => name ?? '');
  const debs = join(root, '../debs');
  await aptGet('download', ...new Set([...names, ...missing]));
  await mkdir(root);
  for (const deb of await readdir(debs)) await run(dpkgDeb, ['-x', join(debs, deb), root], { signal });
}

function lastLineOf(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string };
  const words = [stderr?.trim(), message].find(Boolean);
  return words?.split('\n').at(-1) ?? '';
}
