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
  /** Whether somebody waits for what it takes to start one. */
  isAnyoneWaiting: () => boolean;
  /** Whether there may be one more, or one in the place of another. Where there is none, one that is of little use makes room. */
  hasPlace: (insteadOf?: LaunchedCli) => boolean;
}

interface Spare {
  key: string;
  cli: LaunchedCli;
  isUp: boolean;
  startedAt: number;
  /** The CLI tells the model the date, and has it from its start. */
  day: string;
  /** How often something else was asked for since its key was. */
  passedOver: number;
}

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;
/** One that is passed over so often is exchanged. At once would be for nothing, where callers of two kinds take turns. */
const MOST_PASSED_OVER = 2;

/**
 * CLIs that are started before it is known what they will be asked, each for a launch key: for what was asked for last, and one
 * for what requests usually are.
 */
export class SparePool {
  /** The oldest first. */
  private readonly spares: Spare[] = [];
  /** What was asked for, the latest last, when, and how often. */
  private readonly asked = new Map<string, { request: LaunchRequest; at: number; times: number }>();
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
    const times = 1 + (this.asked.get(key)?.times ?? 0);
    this.asked.delete(key);
    this.asked.set(key, { request, at: performance.now(), times });
    const [eldest] = this.asked.keys();
    if (eldest !== undefined && this.asked.size > this.options.count) this.asked.delete(eldest);
    for (const spare of this.spares) spare.passedOver = spare.key === key ? 0 : spare.passedOver + 1;
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
    if (this.starting || performance.now() < this.pausedUntil || this.options.isAnyoneWaiting()) return;
    const next = this.missing();
    if (!next || !this.options.hasPlace()) return;
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
          ...{ startedAt: performance.now(), day: today(), passedOver: 0 },
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

  /** What there should be a spare for. Where there is no place for it, one that there need not be makes room, if it may. */
  private missing(): LaunchRequest | null {
    const { count, hasPlace } = this.options;
    const most = Math.min(count, this.spares.length + (hasPlace() ? 1 : 0));
    const wanted = this.wanted().slice(0, most);
    const surplus = this.spares.filter(({ key }) => {
      const found = wanted.findIndex((request) => request.key === key);
      if (found >= 0) wanted.splice(found, 1);
      return found < 0;
    });
    const [next] = wanted;
    if (!next || this.spares.length < most) return next ?? null;
    // What was asked for once may never be asked for again.
    const comesAgain = (this.asked.get(next.key ?? '')?.times ?? 0) > 1;
    const useless = surplus.find(
      (spare) => this.isOneOfSeveral(spare) || (comesAgain && spare.passedOver >= MOST_PASSED_OVER),
    );
    if (!useless || !hasPlace(useless.cli)) return null;
    this.end(useless);
    return next;
  }

  private isOneOfSeveral({ key }: Spare): boolean {
    return this.spares.filter((spare) => spare.key === key).length > 1;
  }

  /** The most wanted first: one for the very latest, one for the usual request, one for each of the latest, and the rest as the first. */
  private wanted(): LaunchRequest[] {
    const { count, standing, maxAgeMs } = this.options;
    const lately = [...this.asked.values()].filter(({ at }) => at > performance.now() - maxAgeMs).reverse();
    const [latest = standing, ...others] = lately.map(({ request }) => request);
    const wanted = [latest, standing, ...others].filter(
      ({ key }, index, all) => all.findIndex((request) => request.key === key) === index,
    );
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
