import { writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';

/** Of CLIs and what they start, beside the server and its stores at 0: who is about to pass on what they say goes first. */
export const NICENESS = 10;

/**
 * Has a program, and what it will start, give way to others that want a CPU. Where the kernel makes a group of each session
 * (CONFIG_SCHED_AUTOGROUP), niceness counts within that group alone, and the group has one of its own: sched(7). A program that
 * has begun a session since must do that itself: see GIVE_WAY. Without effect where it is not allowed.
 */
export function giveWay(pid: number): void {
  for (const lower of [
    () => setPriority(pid, NICENESS),
    () => writeFileSync(`/proc/${pid}/autogroup`, String(NICENESS)),
  ])
    try {
      lower();
    } catch {
      // It is gone, or the kernel has no such groups, or takes such a wish only so often from who is not root.
    }
}

/** For a shell: the same for the session that it is in. */
export const GIVE_WAY = `{ echo ${NICENESS} >/proc/self/autogroup; } 2>/dev/null`;
