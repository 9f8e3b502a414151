import type { SeededRandom } from './seeded-random.js';

/** How a prompt is submitted: over which transport, and waiting how. */
type Door = 'async' | 'waiting' | 'bounded' | 'sse' | 'socket';

/** How a log is read: by which transport, and what it resumes by. */
type Transport = 'sse-last-event-id' | 'sse-after' | 'socket' | 'pages';

export interface Reading {
  transport: Transport;
  /** After the process is accepted. */
  afterMs: number;
  /** It takes its time with every event. */
  paceMs: number;
  /** How many events it reads, each time, before it goes away and comes again at another server. */
  hops: number[];
}

export interface Submission {
  /** In the prompt, and nowhere else. */
  mark: string;
  atMs: number;
  prompt: string;
  door: Door;
  /** Sent in parallel under one idempotency key, each again until it is accepted; 0: once, and without a key. */
  copies: number;
  retry: { maxAttempts: number; on: string[] } | null;
  /** After the process is accepted. */
  cancelAfterMs: number | null;
  readings: Reading[];
  /** Which API server it goes to first. */
  api: number;
}

/** CLIs are what a small machine has least of: about one submission in that many milliseconds. */
const APART_MS = 600;
const STORM_COPIES = 100;
const DOORS: readonly Door[] = ['async', 'waiting', 'bounded', 'sse', 'socket'];
const TRANSPORTS: readonly Transport[] = ['sse-last-event-id', 'sse-after', 'socket', 'pages'];

export function drawSubmissions(
  random: SeededRandom,
  { seed, durationMs }: { seed: number; durationMs: number },
): Submission[] {
  const count = Math.floor(durationMs / APART_MS);
  const storm = random.int(0, count - 1);
  return Array.from({ length: count }, (_, index) => {
    const mark = `chaos-${seed}-${index + 1}-end`;
    const submission: Submission = {
      mark,
      atMs: Math.floor(random.next() * durationMs),
      prompt: `${mark}\n${drawWork(random)}`,
      door: random.pick(DOORS),
      copies: random.chance(0.75) ? random.int(1, 4) : 0,
      retry: random.chance(0.3) ? { maxAttempts: random.int(2, 3), on: ['worker_lost'] } : null,
      cancelAfterMs: random.chance(0.35) ? Math.floor(random.next() ** 2 * 5000) : null,
      readings: Array.from({ length: random.int(0, 2) }, () => drawReading(random)),
      api: random.int(0, 1),
    };
    // One of them comes a hundred times at once.
    return index === storm ? { ...submission, door: 'async' as const, copies: STORM_COPIES } : submission;
  }).sort((a, b) => a.atMs - b.atMs);
}

/** What the scripted Messages API is told to answer: mostly at once, sometimes for as long as it takes to be hit. */
function drawWork(random: SeededRandom): string {
  switch (random.int(0, 5)) {
    case 0:
      return '[[text At once.]]';
    case 1:
      return `[[think Let me see]]\n[[deltas ${random.int(3, 12)} ${random.int(10, 60)}]]`;
    case 2:
      return '[[tool Write {"file_path":"a.txt","content":"b"}]]\n[[text Written.]]';
    case 3:
      return `[[delay ${random.int(500, 2500)}]]\n[[text Late.]]`;
    case 4:
      return '[[cut 2 times=1]]\n[[deltas 6 20]]';
    default:
      return `[[deltas ${random.int(10, 40)} ${random.int(40, 120)}]]`;
  }
}

function drawReading(random: SeededRandom): Reading {
  return {
    transport: random.pick(TRANSPORTS),
    afterMs: Math.floor(random.next() ** 2 * 3000),
    paceMs: random.chance(0.3) ? random.int(20, 120) : 0,
    hops: Array.from({ length: random.int(0, 3) }, () => random.int(1, 12)),
  };
}
