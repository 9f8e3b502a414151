import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findPackageTools, findPrograms, unpackDistributionPackage } from './distribution-package.js';
import { PLAIN_ENVIRONMENT } from './os-process.js';

const run = promisify(execFile);

/**
 * Bubblewrap: installed, or the distribution's package unpacked privately. Whether it may make a sandbox here is another
 * matter.
 * @param options.searchPath where an installed one may be; default: where systems usually have it
 * @param options.toolPath where apt-get and dpkg-deb may be
 * @returns its path
 * @throws Error saying why there is none
 */
export async function findBubblewrap(options: {
  cacheDirectory: string;
  searchPath?: string | undefined;
  toolPath?: string;
  onProgress?: (line: string) => void;
  signal?: AbortSignal | undefined;
}): Promise<string> {
  const { searchPath = PLAIN_ENVIRONMENT.PATH, toolPath = PLAIN_ENVIRONMENT.PATH, signal } = options;
  for (const file of await findPrograms('bwrap', searchPath)) if (await runs(file)) return file;
  const target = join(options.cacheDirectory, 'bubblewrap');
  const unpacked = (root: string) => join(root, 'usr/bin/bwrap');
  if (await runs(unpacked(target))) return unpacked(target);
  const tools = await findPackageTools(toolPath);
  if (!tools) throw new Error('there is no bubblewrap, and no apt-get to fetch it with');
  options.onProgress?.('Fetching bubblewrap, for the sandbox (a private copy, nothing is installed)');
  const accept = (root: string) => runs(unpacked(root));
  await unpackDistributionPackage({ target, tools, packages: [['bubblewrap']], accept, signal });
  if (await runs(unpacked(target))) return unpacked(target);
  throw new Error(`the copy in ${target} does not run: remove it`);
}

async function runs(file: string): Promise<boolean> {
  const answer = await run(file, ['--version'], { env: PLAIN_ENVIRONMENT }).catch(() => undefined);
  return answer?.stdout.startsWith('bubblewrap ') ?? false;
}
