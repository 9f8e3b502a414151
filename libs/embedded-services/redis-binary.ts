import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findPackageTools, findPrograms, unpackDistributionPackage } from './distribution-package.js';
import { PLAIN_ENVIRONMENT } from './os-process.js';

const run = promisify(execFile);

const PROGRAMS = ['valkey-server', 'redis-server'] as const;
/** What goes together: in Debian's packages the server's program is a link into its tools. */
const PACKAGES = [
  ['valkey-server', 'valkey-tools'],
  ['redis-server', 'redis-tools'],
] as const;
const USUAL_PLACES = `${PLAIN_ENVIRONMENT.PATH}:/opt/homebrew/bin:/opt/local/bin:/snap/bin`;

export interface RedisBinary {
  readonly file: string;
  readonly env: Readonly<Record<string, string>>;
}

/**
 * A Redis or Valkey server that runs here: installed, or the distribution's package unpacked privately.
 * @param options.searchPath where an installed one may be; default: where systems usually have it
 * @param options.toolPath where apt-get and dpkg-deb may be
 * @throws Error naming the ways out when there is none.
 */
export async function findRedisBinary(options: {
  cacheDirectory: string;
  searchPath?: string | undefined;
  toolPath?: string;
  onProgress: (line: string) => void;
  signal: AbortSignal | undefined;
}): Promise<RedisBinary> {
  const { searchPath = USUAL_PLACES, toolPath = PLAIN_ENVIRONMENT.PATH, onProgress, signal } = options;
  const installed = await findInstalled(searchPath);
  if (installed) return installed;
  const target = join(options.cacheDirectory, 'redis');
  const unpacked = await findUnpacked(target);
  if (unpacked) return unpacked;
  const tools = await findPackageTools(toolPath);
  if (!tools) throw noRedis('and no apt-get to fetch one with');
  onProgress('Fetching the Redis package of this distribution (a private copy, nothing is installed)');
  const accept = async (root: string) => (await findUnpacked(root)) !== undefined;
  await unpackDistributionPackage({ target, tools, packages: PACKAGES, accept, signal }).catch(
    (error: unknown) => {
      signal?.throwIfAborted();
      throw noRedis(`and none could be fetched (${(error as Error).message})`, error);
    },
  );
  const fetched = await findUnpacked(target);
  if (!fetched) throw noRedis(`and the copy in ${target} does not run: remove it`);
  return fetched;
}

function noRedis(circumstance: string, cause?: unknown): Error {
  return new Error(
    `There is no valkey-server or redis-server here, ${circumstance}. Install one (apt install redis-server, ` +
      'dnf install valkey, brew install redis), or set REDIS_URL to one of your own.',
    { cause },
  );
}

async function findInstalled(searchPath: string): Promise<RedisBinary | undefined> {
  for (const program of PROGRAMS) {
    for (const file of await findPrograms(program, searchPath)) {
      const binary = { file, env: PLAIN_ENVIRONMENT };
      if (await runs(binary)) return binary;
    }
  }
  return undefined;
}

/** A package unpacked elsewhere finds its libraries only when told where they are. */
async function findUnpacked(root: string): Promise<RedisBinary | undefined> {
  const libraries: string[] = [];
  for (const folder of ['usr/lib', 'lib']) {
    const names = await readdir(join(root, folder)).catch(() => []);
    libraries.push(
      ...names.filter((name) => name.includes('linux-gnu')).map((name) => join(root, folder, name)),
    );
  }
  for (const program of PROGRAMS) {
    const env = { ...PLAIN_ENVIRONMENT, LD_LIBRARY_PATH: libraries.join(':') };
    const binary = { file: join(root, 'usr/bin', program), env };
    if (await runs(binary)) return binary;
  }
  return undefined;
}

/** A file of that name may be a wrapper without its program, or lack a library. */
async function runs(binary: RedisBinary): Promise<boolean> {
  const answer = await run(binary.file, ['--version'], { env: binary.env }).catch(() => undefined);
  return answer !== undefined && /v=\s*\d/.test(answer.stdout);
}
