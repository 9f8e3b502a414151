import { type Departures } from './departures.js';
import { type LaunchRequest } from './launch-request.js';
import { type LaunchedCli } from './launched-cli.js';
import { type SupplyFigures } from './claude-engine.js';

export interface SparePoolOptions {
  /** How many at most; 0 is none. */
  count: number;
  /** An older one is replaced. */
  maxAgeMs: number;
  /** What a request says that says nothing. */
  standing: LaunchRequest;
  /** Starts one, and waits until it is up. @returns whether it came up */
  start: (request: LaunchRequest, onLaunched: (cli: LaunchedCli) => void) => Promise<boolean>;
  /** Whether one may be started now: nobody waits for what that takes. */
  mayStart: () => boolean;
}

interface Spare {
  key: string;
  cli: LaunchedCli;
  isUp: boolean;
  startedAt: number;
  /** The CLI tells the model the date, and has it from its start. */
  day: string;
}

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

/**
 * CLIs that are started before it is known what they will be asked, each for a launch key: one for what requests usually are,
 * the others for what was asked for last.
 */
export class SparePool {
  /** The oldest first. */
  private readonly spares: Spare[] = [];
  /** What was asked for, the latest last, and when. */
  private readonly asked = new Map<string, { request: LaunchRequest; at: number }>();
  private starting: Promise<void> | null = null;
  private failures = 0;
  private pausedUntil = 0;
  private isClosed = false;
  private hits = 0;
  private misses = 0;
  private evictions = 0;

  constructor(
    private readonly options: SparePoolOptions,
    private readonly departures: Departures,
  ) {}

  get figures(): SupplyFigures {
    const [oldest] = this.spares;
    const { hits, misses, evictions } = this;
    const oldestMs = oldest ? Math.round(performance.now() - oldest.startedAt) : null;
    const count = this.spares.filter(({ isUp }) => isUp).length;
    return { count, hits, misses, evictions, oldestMs };
  }

  get clis(): LaunchedCli[] {
    return this.spares.map(({ cli }) => cli);
  }

  /** Takes note of what is asked for. @returns a spare for it, which is the caller's from now on; null where there is none */
  take(request: LaunchRequest): LaunchedCli | null {
    const { key } = request;
    if (this.options.count === 0 || key === null) return null;
    this.asked.delete(key);
    this.asked.set(key, { request, at: performance.now() });
    const [eldest] = this.asked.keys();
    if (eldest !== undefined && this.asked.size > this.options.count) this.asked.delete(eldest);
    const spare = this.spares.find((candidate) => candidate.key === key && !this.isStale(candidate));
    if (!spare) {
      this.misses += 1;
      return null;
    }
    this.drop(spare);
    this.hits += 1;
    return spare.cli;
  }

  /** Ends what is stale, and starts what is missing, one after the other. */
  tend(): void {
    if (this.isClosed) return;
    for (const spare of this.spares.filter((candidate) => this.isStale(candidate))) this.end(spare);
    if (this.starting || performance.now() < this.pausedUntil || !this.options.mayStart()) return;
    const next = this.missing();
    if (!next) return;
    this.starting = this.start(next).finally(() => {
      this.starting = null;
      this.tend();
    });
  }

  /** Ends one, so that somebody else has its memory. @returns whether there was one */
  evictOne(): boolean {
    const [oldest] = this.spares;
    if (!oldest) return false;
    this.evictions += 1;
    this.end(oldest);
    return true;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    for (const spare of [...this.spares]) this.end(spare);
    await this.starting;
  }

  private async start(request: LaunchRequest): Promise<void> {
    const launched: Spare[] = [];
    const isUp = await this.options
      .start(request, (cli) => {
        const spare = {
          ...{ key: request.key ?? '', cli, isUp: false },
          ...{ startedAt: performance.now(), day: today() },
        };
        launched.push(spare);
        this.add(spare);
      })
      .catch(() => false);
    for (const spare of launched) spare.isUp = isUp;
    if (isUp) this.failures = 0;
    else this.pause();
  }

  private add(spare: Spare): void {
    this.spares.push(spare);
    const onGone = () => {
      if (!this.spares.includes(spare)) return;
      spare.cli.launch.tellDeath(spare.cli.breakage);
      this.end(spare);
      this.pause();
    };
    void spare.cli.gone.then(onGone);
    if (this.isClosed) this.end(spare);
  }

  /** What dies unasked would die again: not at once. */
  private pause(): void {
    const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** this.failures, LONGEST_PAUSE_MS);
    this.failures += 1;
    this.pausedUntil = performance.now() + pauseMs;
  }

  /** What there should be a spare for. One that there need not be makes room for it. */
  private missing(): LaunchRequest | null {
    const wanted = this.wanted();
    const surplus = this.spares.filter(({ key }) => {
      const found = wanted.findIndex((request) => request.key === key);
      if (found >= 0) wanted.splice(found, 1);
      return found < 0;
    });
    const [next = null] = wanted;
    if (next && surplus[0] && this.spares.length >= this.options.count) this.end(surplus[0]);
    return next;
  }

  /** One for the usual request, one for each of the latest, and the rest for the very latest. */
  private wanted(): LaunchRequest[] {
    const { count, standing, maxAgeMs } = this.options;
    const lately = [...this.asked.values()].filter(({ at }) => at > performance.now() - maxAgeMs).reverse();
    const latest = lately[0]?.request ?? standing;
    const others = lately.map(({ request }) => request).filter(({ key }) => key !== standing.key);
    const wanted = [standing, ...others].slice(0, count);
    while (wanted.length < count) wanted.push(latest);
    return wanted;
  }

  private isStale({ startedAt, day }: Spare): boolean {
    return performance.now() - startedAt > this.options.maxAgeMs || day !== today();
  }

  private drop(spare: Spare): void {
    this.spares.splice(this.spares.indexOf(spare), 1);
  }

  private end(spare: Spare): void {
    this.drop(spare);
    void this.departures.end(spare.cli);
  }
}

const today = () => new Date().toDateString();
