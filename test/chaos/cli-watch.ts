import { setTimeout as sleep } from 'node:timers/promises';
import {
  bornAt,
  commandOf,
  environmentOf,
  lookAt,
  type OsProcess,
  pids,
  workingDirectoryOf,
} from './os-processes.js';
import type { Incarnation, ServerSlot } from './server-slot.js';

const SAMPLE_MS = 100;
/** Between fork and exec a CLI still looks like its parent: a young process is looked at again. */
const YOUTH_MS = 2000;

/** One launch of a CLI, with whatever it started, as the process table shows it. */
export interface SeenLaunch {
  id: string;
  /** The workspace it runs in, named after its session. */
  session: string;
  slot: string;
  /** The life of the server that started it. */
  owner: Incarnation;
  pids: Set<number>;
  firstSeenAt: number;
  lastSeenAt: number;
  /** Whether it is there now. */
  isLive: boolean;
}

/** Two launches for one session, seen at one and the same moment. */
export interface Overlap {
  session: string;
  at: number;
  launches: [string, string];
}

interface Member {
  launch: SeenLaunch;
  process: OsProcess;
}

/** Looks at the process table, which announces nothing, all the time. */
export class CliWatch {
  readonly launches = new Map<string, SeenLaunch>();
  readonly overlaps: Overlap[] = [];
  private readonly members = new Map<string, Member>();
  private readonly strangers = new Set<string>();
  private readonly stopping = new AbortController();
  private watching: Promise<void> | null = null;

  constructor(private readonly slots: readonly ServerSlot[]) {}

  start(): void {
    this.watching ??= this.watch();
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await this.watching;
  }

  get live(): SeenLaunch[] {
    return [...this.launches.values()].filter(({ isLive }) => isLive);
  }

  /** Looks once, now. */
  sample(): void {
    const now = Date.now();
    for (const launch of this.launches.values()) launch.isLive = false;
    const present = new Set<string>();
    for (const pid of pids()) {
      const process = lookAt(pid);
      if (!process || process.state === 'Z') continue;
      const key = `${pid}:${process.startTicks}`;
      present.add(key);
      const launch = this.launchOf(key, process, now);
      if (!launch) continue;
      launch.isLive = true;
      launch.lastSeenAt = now;
      launch.pids.add(pid);
    }
    for (const key of this.members.keys()) if (!present.has(key)) this.members.delete(key);
    for (const key of this.strangers) if (!present.has(key)) this.strangers.delete(key);
    this.noteOverlaps(now);
  }

  /** The processes of a launch that are there now. */
  pidsOf(launch: SeenLaunch): number[] {
    return [...this.members.values()]
      .filter((member) => member.launch === launch)
      .map(({ process }) => process.pid);
  }

  private async watch(): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      this.sample();
      await sleep(SAMPLE_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  private launchOf(key: string, process: OsProcess, now: number): SeenLaunch | null {
    const known = this.members.get(key);
    if (known) return known.launch;
    if (this.strangers.has(key)) return null;
    const launch = this.recognise(process, now);
    if (launch) this.members.set(key, { launch, process });
    else if (now - bornAt(process) > YOUTH_MS) this.strangers.add(key);
    return launch;
  }

  /** A CLI's home is the folder of its launch, in the data directory of its server. */
  private recognise(process: OsProcess, now: number): SeenLaunch | null {
    const home = environmentOf(process.pid).find((variable) => variable.startsWith('HOME='));
    if (home === undefined) return null;
    for (const slot of this.slots) {
      const prefix = `HOME=${slot.dataDirectory}/engine/launches/`;
      if (!home.startsWith(prefix)) continue;
      const id = home.slice(prefix.length).split('/')[0] ?? '';
      const known = this.launches.get(id);
      if (known) return known;
      const owner = ownerOf(slot, bornAt(process));
      const session = sessionOf(process.pid, slot);
      if (!owner || session === null) return null;
      const launch = {
        id,
        session,
        slot: slot.name,
        owner,
        pids: new Set<number>(),
        firstSeenAt: now,
        lastSeenAt: now,
        isLive: true,
      };
      this.launches.set(id, launch);
      return launch;
    }
    return null;
  }

  private noteOverlaps(at: number): void {
    const bySession = new Map<string, SeenLaunch>();
    for (const launch of this.live) {
      const other = bySession.get(launch.session);
      if (other) this.overlaps.push({ session: launch.session, at, launches: [other.id, launch.id] });
      else bySession.set(launch.session, launch);
    }
  }
}

/** Its workspace is named after it: the folder that it runs in, or the one that its sandbox shows it. */
function sessionOf(pid: number, { dataDirectory }: ServerSlot): string | null {
  const workspaces = `${dataDirectory}/engine/workspaces/`;
  const places = [workingDirectoryOf(pid) ?? '', ...commandOf(pid)];
  const workspace = places.find((place) => place.startsWith(workspaces));
  return workspace?.slice(workspaces.length).split('/')[0] ?? null;
}

/** The server that lived when the CLI was born; clock ticks are coarse. */
function ownerOf(slot: ServerSlot, at: number): Incarnation | undefined {
  return slot.incarnations.findLast(({ bornAt: born }) => born <= at + 50);
}
