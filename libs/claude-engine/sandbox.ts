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
  { mode, network, bwrapPath, hidden = [] }: SandboxOptions,
  { cliPath, onNotice }: { cliPath: string | null; onNotice: (notice: EngineNotice) => void },
): Promise<Launcher> {
  if (mode === 'off') return plainLauncher;
  const found = { bwrapPath: bwrapPath ?? (await findBwrap()), cliPath: cliPath ?? '', network, hidden };
  const { identity, reason } = await identityThatWorks(found);
  if (identity) return new BwrapLauncher({ ...found, bwrapPath: found.bwrapPath ?? '', identity });
  if (mode === 'required') throw new SandboxUnavailableError(reason);
  onNotice({ kind: 'no_sandbox', reason });
  return plainLauncher;
}

type Identity = BwrapOptions['identity'];

/** The first that works, root's own first; or why none does. */
async function identityThatWorks(
  options: Omit<BwrapOptions, 'identity' | 'bwrapPath'> & { bwrapPath: string | null },
): Promise<{ identity: Identity | null; reason: string }> {
  const { bwrapPath } = options;
  if (process.platform !== 'linux') return { identity: null, reason: 'There is one for Linux only.' };
  if (bwrapPath === null)
    return { identity: null, reason: 'Bubblewrap is missing: apt-get install bubblewrap.' };
  // A CLI that is not there, or not yet, is another matter.
  const cliPath = (await isExecutable(options.cliPath)) ? options.cliPath : '/usr/bin/true';
  const identities: Identity[] = ['user-namespace'];
  if (process.getuid?.() === 0) identities.unshift('own-user');
  const obstacles: string[] = [];
  for (const identity of identities) {
    const obstacle = await obstacleTo(new BwrapLauncher({ ...options, bwrapPath, cliPath, identity }));
    if (obstacle === null) return { identity, reason: '' };
    obstacles.push(obstacle);
  }
  return { identity: null, reason: `${bwrapPath} does not work here: ${obstacles.join('; ')}` };
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
