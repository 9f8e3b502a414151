import type { SeededRandom } from './seeded-random.js';
import type { Timings } from './timings.js';

/** What is done to the system, and how often each is in the deck that a run draws from. */
const DECK = {
  'kill -9 worker': 3,
  'kill -9 api': 2,
  'kill -9 cli': 2,
  'kill -9 postgres': 1,
  'kill -9 postgres backend': 1,
  'kill -9 redis': 1,
  'SIGTERM worker': 1,
  'SIGTERM api': 1,
  'SIGSTOP worker': 2,
  'SIGSTOP api': 1,
  'SIGSTOP cli': 1,
  'FLUSHALL redis': 1,
  'reset postgres': 1,
  'reset redis': 1,
  'black hole postgres': 2,
  'black hole redis': 1,
  'delay postgres': 1,
  'delay redis': 1,
  'swallow postgres': 2,
  'swallow redis': 1,
} as const;

export type FaultKind = keyof typeof DECK;

export const FAULT_KINDS = Object.keys(DECK) as FaultKind[];

export interface Fault {
  kind: FaultKind;
  atMs: number;
  /** How long the killed stays away, the stopped stands still, the network misbehaves. */
  forMs: number;
  /** Chooses among those whom it may hit. */
  pick: number;
  /** A fault of the network: whether it is every server's, or one's alone. */
  isEverywhere: boolean;
}

const APART_MS = 1500;
/** Nothing happens in the first moments: there is nothing to hit. */
const LEAD_MS = 700;

export function drawFaults(
  random: SeededRandom,
  { durationMs, timings }: { durationMs: number; timings: Timings },
): Fault[] {
  const count = Math.floor((durationMs - LEAD_MS) / APART_MS);
  const deck: FaultKind[] = [];
  while (deck.length < count) {
    const cards = FAULT_KINDS.flatMap((kind) => Array.from({ length: DECK[kind] }, () => kind));
    deck.push(...random.shuffle(cards));
  }
  return deck.slice(0, count).map((kind, index) => {
    const isEverywhere = random.chance(0.4);
    return {
      kind,
      atMs: Math.floor(LEAD_MS + (index + random.next()) * APART_MS),
      forMs: Math.floor(drawLength(random, kind, { isEverywhere, timings })),
      pick: random.int(0, 1_000_000),
      isEverywhere,
    };
  });
}

/** Mostly short; sometimes longer than a lease holds, which is where split brains come from. */
function drawLength(
  random: SeededRandom,
  kind: FaultKind,
  { isEverywhere, timings }: { isEverywhere: boolean; timings: Timings },
): number {
  const within = (from: number, to: number) => from + random.next() * (to - from);
  const beyondLease = () => within(1.1, 1.5) * timings.LEASE_TTL_MS;
  switch (kind) {
    case 'SIGSTOP worker':
      return random.chance(0.6) ? beyondLease() : within(200, 1500);
    case 'black hole postgres':
    case 'reset postgres':
      return !isEverywhere && random.chance(0.6) ? beyondLease() : within(200, 1500);
    case 'kill -9 worker':
    case 'black hole redis':
    case 'kill -9 redis':
      return random.chance(0.3) ? beyondLease() : within(100, 1500);
    case 'kill -9 postgres':
      return random.chance(0.2) ? within(1.1, 1.3) * timings.LEASE_FENCE_MS : within(0, 800);
    case 'delay postgres':
    case 'delay redis':
      return within(1000, 3000);
    default:
      return within(200, 2000);
  }
}
