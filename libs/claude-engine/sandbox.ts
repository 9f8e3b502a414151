import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BwrapLauncher, type BwrapOptions } from './bwrap-launcher.js';
import { isExecutable } from './cli-path.js';
import { type EngineNotice } from './engine-notice.js';
import { SOCKET_NAME } from './key-proxy.js';
import { type Launcher } from './launcher.js';
import { plainLauncher } from './plain-launcher.js';

export interface SandboxOptions {
  /** `auto`: where it works. `required`: or there is no engine. `off`: file tools alone. */
  mode: 'auto' | 'required' | 'off';
  /** What programs in the sandbox reach: nothing, or what the machine does. */
  network: 'none' | 'host';
  /** Bubblewrap; where systems usually have it unless told. */
  bwrapPath?: string | undefined;
  /** The same for the programs inside, where `bwrapPath` is no file that can be run there; that one unless told. */
  innerBwrapPath?: string | undefined;
  /** Folders that no sandbox shows, wherever they are: the server's own. */
  hidden?: readonly string[];
}

/** A sandbox was required, and there can be none. */
export class SandboxUnavailableError extends Error {
  override readonly name = 'SandboxUnavailableError';
}

const USUAL_PLACES = ['/usr/bin/bwrap', '/usr/local/bin/bwrap', '/bin/bwrap', '/run/wrappers/bin/bwrap'];

/**
 * The strictest way to start CLIs that works here, tried for real.
 * @throws SandboxUnavailableError
 */
export async function chooseLauncher(
  { mode, network, bwrapPath, innerBwrapPath, hidden = [] }: SandboxOptions,
  { cliPath, onNotice }: { cliPath: string | null; onNotice: (notice: EngineNotice) => void },
): Promise<Launcher> {
  if (mode === 'off') return plainLauncher;
  const found = { bwrapPath: bwrapPath ?? (await findBwrap()), cliPath: cliPath ?? '', network, hidden };
  const { works, reason } = await optionsThatWork(found, innerBwrapPath);
  if (works) {
    if (reason !== '') onNotice({ kind: 'programs_not_separated', reason });
    return new BwrapLauncher({ ...works, cliPath: found.cliPath });
  }
  if (mode === 'required') throw new SandboxUnavailableError(reason);
  onNotice({ kind: 'no_sandbox', reason });
  return plainLauncher;
}

/**
 * The first that work, root's own first, and those that separate programs before those that do not; or null. `reason`: why it is
 * not the strictest.
 */
async function optionsThatWork(
  options: Omit<BwrapOptions, 'identity' | 'separation' | 'bwrapPath'> & { bwrapPath: string | null },
  innerBwrapPath: string | undefined,
): Promise<{ works: BwrapOptions | null; reason: string }> {
  const { bwrapPath } = options;
  if (process.platform !== 'linux') return { works: null, reason: 'There is one for Linux only.' };
  if (bwrapPath === null)
    return { works: null, reason: 'Bubblewrap is missing: apt-get install bubblewrap.' };
  // A CLI that is not there, or not yet, is another matter.
  const cliPath = (await isExecutable(options.cliPath)) ? options.cliPath : '/usr/bin/true';
  const identities: BwrapOptions['identity'][] = ['user-namespace'];
  if (process.getuid?.() === 0) identities.unshift('own-user');
  const obstacles: string[] = [];
  for (const identity of identities) {
    for (const separation of [{ bwrapPath: innerBwrapPath ?? bwrapPath }, null]) {
      const tried = { ...options, bwrapPath, cliPath, identity, separation };
      const obstacle = await obstacleTo(new BwrapLauncher(tried));
      if (obstacle === null) return { works: tried, reason: separation ? '' : (obstacles.at(-1) ?? '') };
      obstacles.push(obstacle);
    }
  }
  return { works: null, reason: `${bwrapPath} does not work here: ${[...new Set(obstacles)].join('; ')}` };
}

async function findBwrap(): Promise<string | null> {
  for (const path of USUAL_PLACES) if (await isExecutable(path)) return path;
  return null;
}

/** Tries a launcher out. Null if it works. */
async function obstacleTo(launcher: BwrapLauncher): Promise<string | null> {
  const root = await mkdtemp(join(tmpdir(), 'claude-sandbox-probe-'));
  const [config, temporary, workspace] = ['config', 'tmp', 'workspace'].map((name) => join(root, name)) as [
    string,
    string,
    string,
  ];
  try {
    for (const folder of [config, temporary, workspace]) await mkdir(folder, { mode: 0o700 });
    await writeFile(join(root, SOCKET_NAME), '');
    await launcher.probe({ folders: { root, config, temporary }, workspace });
    return null;
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    const said = stderr === undefined || stderr.trim() === '' ? message : stderr;
    return said.trim().split('\n').at(-1) ?? '';
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}
