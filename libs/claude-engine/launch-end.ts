import { setTimeout as sleep } from 'node:timers/promises';
import { type LaunchMarks, processesOf, sendSignal } from './process-table.js';

const POLL_MS = 20;
const KILL_PATIENCE_MS = 1000;

/**
 * Kills what is left of a launch until nothing is: its group at once, then whoever carries its mark, those who were just
 * forked included. Gives up after a second; `left` are those that even SIGKILL did not end by then.
 * @param graceMs what may pass before: what ends by itself is not killed
 */
export async function killRemains(
  launch: LaunchMarks,
  graceMs = 0,
): Promise<{ killed: number[]; left: number[] }> {
  const killed = new Set<number>();
  const since = performance.now();
  for (;;) {
    const left = await processesOf(launch);
    const lateMs = performance.now() - since - graceMs;
    if (left.length === 0 || lateMs > KILL_PATIENCE_MS) return { killed: [...killed], left };
    for (const pid of lateMs >= 0 ? left : []) {
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
