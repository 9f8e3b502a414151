import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 20;
const PATIENCE_MS = 20_000;

/**
 * The pids of the CLIs that run processes for a server, and of whatever they have started: their home is the folder of a
 * launch in its data directory. (The CLI that is asked for its version has another.) Corpses have no environment any more.
 */
export async function cliProcessesOf(dataDirectory: string): Promise<number[]> {
  const home = `HOME=${dataDirectory}/engine/launches/`;
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const isOurs = await Promise.all(
    pids.map(async (pid) => {
      // Gone by now, or another user's.
      const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
      return environment.split('\0').some((variable) => variable.startsWith(home));
    }),
  );
  return pids.filter((_, index) => isOurs[index]);
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
