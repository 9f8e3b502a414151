import { setTimeout as sleep } from 'node:timers/promises';
import { type LaunchMarks, processesOf, sendSignal } from './process-table.js';

const POLL_MS = 20;
const KILL_PATIENCE_MS = 1000;

/** Whether all of a launch ends by itself within `ms`. */
export async function endsByItself(launch: LaunchMarks, ms: number): Promise<boolean> {
  const deadline = performance.now() + ms;
  while ((await processesOf(launch)).length > 0) {
    if (performance.now() > deadline) return false;
    await sleep(POLL_MS);
  }
  return true;
}

/**
 * Kills what is left of a launch until nothing is: its group at once, then whoever carries its mark, those who were just
 * forked included. Gives up after a second; `left` are those that even SIGKILL did not end by then.
 */
export async function killRemains(launch: LaunchMarks): Promise<{ killed: number[]; left: number[] }> {
  const killed = new Set<number>();
  const deadline = performance.now() + KILL_PATIENCE_MS;
  for (;;) {
    const left = await processesOf(launch);
    if (left.length === 0 || performance.now() > deadline) return { killed: [...killed], left };
    for (const pid of left) {
      sendSignal(pid, 'SIGKILL');
      killed.add(pid);
    }
    await sleep(POLL_MS);
  }
}

/** Whether `event` comes within `ms`. Leaves no timer behind. */
export async function within(ms: number, event: Promise<unknown>): Promise<boolean> {
  const timer = new AbortController();
  const patience = sleep(ms, false, { signal: timer.signal }).catch(() => false);
  try {
    return await Promise.race([event.then(() => true), patience]);
  } finally {
    timer.abort();
  }
}
