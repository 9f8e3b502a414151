import { writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

/** By how much CLIs and what they start are nicer than the server: who is about to pass on what they say goes first. */
export const NICENESS = 10;
const MOST_NICE = 19;

/**
 * Has a program that has just been started, at the head of a session, give way to others that want a CPU. Where the kernel makes
 * a group of each session (CONFIG_SCHED_AUTOGROUP), niceness counts within that group alone, and the group has one of its own:
 * sched(7). Without effect where it is not allowed.
 */
export function giveWay(pid: number): void {
  const steps = [
    () => setPriority(pid, Math.min(getPriority() + NICENESS, MOST_NICE)),
    () => writeFileSync(`/proc/${pid}/autogroup`, String(NICENESS)),
  ];
  for (const step of steps)
    try {
      step();
    } catch {
      // It is gone, or the kernel has no such groups.
    }
}

/** The same for what a program is to start, in front of that. */
export const NICELY = ['/usr/bin/nice', '-n', String(NICENESS)];

/**
 * And for a shell at the head of a session, of the session. The kernel takes such a wish ten times a second, from all together
 * who are not root: one that comes too soon after another is lost.
 */
export const GIVE_WAY = `{ echo ${NICENESS} >/proc/self/autogroup; } 2>/dev/null`;
