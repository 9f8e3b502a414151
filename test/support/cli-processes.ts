import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 20;
const PATIENCE_MS = 45_000;

/**
 * The pids of the CLIs that run processes for a server, and of whatever they have started: their home is the folder of a
 * launch in its data directory. (The CLI that is asked for its version has another.) Corpses have no environment any more.
 */
export async function cliProcessesOf(dataDirectory: string): Promise<number[]> {
  return (await homesOf(dataDirectory)).map(({ pid }) => pid);
}

/** How many CLIs run: a sandbox is several processes, with one home. */
export async function countClisOf(dataDirectory: string): Promise<number> {
  return new Set((await homesOf(dataDirectory)).map(({ home }) => home)).size;
}

async function homesOf(dataDirectory: string): Promise<{ pid: number; home: string }[]> {
  const prefix = `HOME=${dataDirectory}/engine/launches/`;
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => {
      // Gone by now, or another user's.
      const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
      const home = environment.split('\0').find((variable) => variable.startsWith(prefix));
      return home === undefined ? null : { pid, home };
    }),
  );
  return found.filter((process) => process !== null);
}

/** Looks at the process table, which announces nothing, until no CLI of the server is left. @returns how long that took */
export async function untilNoCliOf(dataDirectory: string): Promise<{ elapsedMs: number }> {
  const began = performance.now();
  for (;;) {
    const pids = await cliProcessesOf(dataDirectory);
    const elapsedMs = performance.now() - began;
    if (pids.length === 0) return { elapsedMs };
    if (elapsedMs > PATIENCE_MS) throw new Error(`These CLIs are still there: ${pids.join()}.`);
    await sleep(POLL_MS);
  }
}
