import { drawFaults, type Fault } from './fault-schedule.js';
import { SeededRandom } from './seeded-random.js';
import type { Timings } from './timings.js';
import { drawSubmissions, type Submission } from './work-schedule.js';

/** Those of every `npm test`: together they commit every kind of fault. */
export const FIXED_SEEDS = [4, 8, 38];

/** Everything that we decide about one run. What the machine decides, it decides anew each time. */
export interface Schedule {
  seed: number;
  durationMs: number;
  /** Whether Redis keeps its data over a kill -9. */
  redisIsDurable: boolean;
  submissions: Submission[];
  faults: Fault[];
}

export function drawSchedule(seed: number, timings: Timings): Schedule {
  const random = new SeededRandom(seed);
  const durationMs = Math.max(15_000, 2.5 * timings.LEASE_TTL_MS);
  return {
    seed,
    durationMs,
    redisIsDurable: random.chance(0.5),
    submissions: drawSubmissions(random, { seed, durationMs }),
    faults: drawFaults(random, { durationMs, timings }),
  };
}
