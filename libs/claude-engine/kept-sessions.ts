import { type SupplyFigures } from './claude-engine.js';
import { type Conversation } from './conversation.js';
import { type Departures } from './departures.js';
import { type LaunchedCli } from './launched-cli.js';

export interface KeptSession {
  workspaceKey: string;
  /** See LaunchRequest. */
  launchKey: string;
  cli: LaunchedCli;
  /** As far as the CLI knows it. */
  conversation: Conversation;
}

/** CLIs that have answered and stay with their sessions, for what is asked next. */
export class KeptSessions {
  /** By workspace key, the longest idle first. */
  private readonly kept = new Map<string, KeptSession & { since: number }>();
  private isClosed = false;
  private hits = 0;
  private misses = 0;
  private evictions = 0;

  /** @param idleMs how long one stays; 0 is not at all */
  constructor(
    private readonly idleMs: number,
    private readonly departures: Departures,
  ) {}

  get figures(): SupplyFigures {
    const [longest] = this.kept.values();
    const { hits, misses, evictions } = this;
    const oldestMs = longest ? Math.round(performance.now() - longest.since) : null;
    return { count: this.kept.size, hits, misses, evictions, oldestMs };
  }

  get size(): number {
    return this.kept.size;
  }

  get sessions(): KeptSession[] {
    return [...this.kept.values()];
  }

  get mayKeep(): boolean {
    return this.idleMs > 0 && !this.isClosed;
  }

  has(workspaceKey: string): boolean {
    return this.kept.has(workspaceKey);
  }

  put(session: KeptSession): void {
    const { workspaceKey, cli } = session;
    const kept = { ...session, since: performance.now() };
    this.kept.set(workspaceKey, kept);
    void cli.gone.then(() => {
      if (this.kept.get(workspaceKey) !== kept) return;
      cli.launch.tellDeath(cli.breakage);
      void this.end(kept);
    });
  }

  /**
   * The CLI of a session, which is the caller's from now on; null where there is none that `isFit`. One that is not is ended
   * before this resolves: two must not work in one folder.
   */
  async take(
    workspaceKey: string,
    isFit: (session: KeptSession) => Promise<boolean>,
  ): Promise<LaunchedCli | null> {
    const session = this.kept.get(workspaceKey);
    if (session && (await isFit(session)) && this.kept.delete(workspaceKey)) {
      this.hits += 1;
      return session.cli;
    }
    await this.forget(workspaceKey);
    return null;
  }

  /** A conversation went on in a CLI that had to be started for it. */
  miss(): void {
    if (this.mayKeep) this.misses += 1;
  }

  /** Ends the CLI that a session has, if it has one. */
  async forget(workspaceKey: string): Promise<void> {
    const session = this.kept.get(workspaceKey);
    if (session) await this.end(session);
    else await this.departures.from(workspaceKey);
  }

  /** Ends those that have been idle for too long. */
  tend(): void {
    for (const session of this.kept.values())
      if (performance.now() - session.since > this.idleMs) void this.end(session);
  }

  /** Ends the longest idle, so that somebody else has its place. @returns whether there was one */
  evictOne(): boolean {
    const [longest] = this.kept.values();
    if (!longest) return false;
    this.evictions += 1;
    void this.end(longest);
    return true;
  }

  close(): void {
    this.isClosed = true;
    for (const session of this.kept.values()) void this.end(session);
  }

  private end({ workspaceKey, cli }: KeptSession): Promise<void> {
    this.kept.delete(workspaceKey);
    return this.departures.end(cli, workspaceKey);
  }
}
