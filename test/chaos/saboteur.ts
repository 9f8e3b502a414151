import { setTimeout as sleep } from 'node:timers/promises';
import type { SeenLaunch } from './cli-watch.js';
import type { Fault, FaultKind } from './fault-schedule.js';
import { kill } from './os-processes.js';
import type { RecoveryClock } from './recovery-clock.js';
import type { Role, ServerSlot, StoreName } from './server-slot.js';
import { retarget, slotsOf, type World } from './world.js';
import type { TcpProxy } from '../support/tcp-proxy.js';

/** What a fault did, for whoever has to understand a failure. */
export interface Deed {
  kind: FaultKind;
  at: number;
  until: number | null;
  /** Null: there was nothing to hit. */
  what: string | null;
}

/** A fault that has hit, and how it ends. */
interface Strike {
  what: string;
  undo?: () => void | Promise<void>;
}

type Blow = (fault: Fault) => Promise<Strike | null>;

/** What a swallowed answer was to: the end of a transaction or a single write (by its name, which begins as it does); a script of Bull's, a message, anything. */
const SWALLOWED: Record<StoreName, readonly RegExp[]> = {
  postgres: [/COMMIT/, /UPDATE|INSERT|AS MATERIALIZED/],
  redis: [/evalsha/i, /publish/i, /./],
};
const MOST_SWALLOWED = 4;
const DELAYS_MS = [30, 400] as const;
/** How long a fault waits for something to hit. */
const PATIENCE_MS = 1500;
const LOOK_MS = 50;
const IDLE_ONE_IN = 5;

/** Does what the schedule says, to whom it finds. */
export class Saboteur {
  readonly deeds: Deed[] = [];
  private readonly blows: Record<FaultKind, Blow>;

  constructor(
    private readonly world: World,
    private readonly clock: RecoveryClock,
  ) {
    this.blows = {
      'kill -9 worker': (fault) => this.killServer('worker', fault),
      'kill -9 api': (fault) => this.killServer('api', fault),
      'kill -9 cli': (fault) => this.killCli(fault),
      'kill -9 postgres': (fault) => this.killStore('postgres', fault),
      'kill -9 postgres backend': ({ pick }) => Promise.resolve(strikeOf(world.postgres.killBackend(pick))),
      'kill -9 redis': (fault) => this.killStore('redis', fault),
      'SIGTERM worker': (fault) => this.terminateServer('worker', fault),
      'SIGTERM api': (fault) => this.terminateServer('api', fault),
      'SIGSTOP worker': (fault) => this.freezeServer('worker', fault),
      'SIGSTOP api': (fault) => this.freezeServer('api', fault),
      'SIGSTOP cli': (fault) => this.freezeCli(fault),
      'FLUSHALL redis': async () => strikeOf(await world.redis.flush()),
      'reset postgres': (fault) => this.spoil('postgres', fault, (proxy) => proxy.cut()),
      'reset redis': (fault) => this.spoil('redis', fault, (proxy) => proxy.cut()),
      'black hole postgres': (fault) => this.spoil('postgres', fault, (proxy) => proxy.blackHole()),
      'black hole redis': (fault) => this.spoil('redis', fault, (proxy) => proxy.blackHole()),
      'delay postgres': (fault) => this.delay('postgres', fault),
      'delay redis': (fault) => this.delay('redis', fault),
      'swallow postgres': (fault) => this.swallow('postgres', fault),
      'swallow redis': (fault) => this.swallow('redis', fault),
    };
  }

  /** Resolves when the fault is over. */
  async commit(fault: Fault): Promise<void> {
    const deed: Deed = { kind: fault.kind, at: Date.now(), until: null, what: null };
    this.deeds.push(deed);
    const strike = await this.blows[fault.kind](fault);
    deed.what = strike?.what ?? null;
    if (strike?.undo) {
      await sleep(fault.forMs);
      await strike.undo();
    }
    deed.until = Date.now();
  }

  private async killServer(role: Role, fault: Fault): Promise<Strike | null> {
    const slot = await this.chooseSlot(role, fault);
    const life = slot?.current;
    if (!slot || !life) return null;
    const running = this.world.clis.live.filter(({ owner }) => owner === life);
    const sessions = running.map(({ session }) => session);
    const at = Date.now();
    await slot.kill();
    if (role === 'worker') await this.clock.workerDied(sessions, at);
    return {
      what: `${slot.name}, pid ${life.pid}, with ${sessions.length} CLIs`,
      undo: () => slot.start(),
    };
  }

  private async terminateServer(role: Role, fault: Fault): Promise<Strike | null> {
    const slot = await this.chooseSlot(role, fault);
    const life = slot?.current;
    if (!slot || !life) return null;
    const began = Date.now();
    await slot.terminate();
    return {
      what: `${slot.name}, pid ${life.pid}, gone after ${Date.now() - began} ms`,
      undo: () => slot.start(),
    };
  }

  private async freezeServer(role: Role, fault: Fault): Promise<Strike | null> {
    const slot = await this.chooseSlot(role, fault);
    const life = slot?.current;
    if (!slot || !life) return null;
    slot.freeze();
    return { what: `${slot.name}, pid ${life.pid}`, undo: () => slot.thaw() };
  }

  private async killCli(fault: Fault): Promise<Strike | null> {
    const launch = await this.chooseLaunch(fault);
    if (!launch) return null;
    const pids = this.world.clis.pidsOf(launch);
    for (const pid of pids) kill(pid, 'SIGKILL');
    return { what: `${nameOf(launch)}, pids ${pids.join()}` };
  }

  private async freezeCli(fault: Fault): Promise<Strike | null> {
    const launch = await this.chooseLaunch(fault);
    if (!launch) return null;
    const pids = this.world.clis.pidsOf(launch);
    const signalAll = (signal: NodeJS.Signals) => {
      for (const pid of pids) kill(pid, signal);
    };
    signalAll('SIGSTOP');
    return { what: `${nameOf(launch)}, pids ${pids.join()}`, undo: () => signalAll('SIGCONT') };
  }

  private async killStore(name: StoreName, { forMs }: Fault): Promise<Strike> {
    const store = this.world[name];
    await store.kill();
    const undo = async () => {
      await store.restart();
      retarget(this.world);
    };
    return { what: `for ${forMs} ms`, undo };
  }

  private delay(store: StoreName, fault: Fault): Promise<Strike> {
    const ms = DELAYS_MS[fault.pick % DELAYS_MS.length] ?? 0;
    return this.spoil(store, fault, (proxy) => proxy.delay(ms), `by ${ms} ms`);
  }

  private swallow(store: StoreName, fault: Fault): Promise<Strike> {
    const to = SWALLOWED[store][fault.pick % SWALLOWED[store].length] ?? /./;
    const times = 1 + (fault.pick % MOST_SWALLOWED);
    const what = `${times} answers to ${String(to)}`;
    return this.spoil(store, fault, (proxy) => proxy.swallowAnswers({ to, times }), what);
  }

  private spoil(
    store: StoreName,
    { isEverywhere, pick, forMs }: Fault,
    act: (proxy: TcpProxy) => void,
    how = '',
  ): Promise<Strike> {
    const { slots } = this.world;
    const hit = isEverywhere ? slots : slots.filter((_, index) => index === pick % slots.length);
    for (const { proxies } of hit) act(proxies[store]);
    const undo = () => {
      for (const { proxies } of hit) proxies[store].restore();
    };
    const names = hit.map(({ name }) => name).join();
    return Promise.resolve({ what: `at ${names} ${how} for ${forMs} ms`, undo });
  }

  /** Mostly a worker with work in hand. */
  private async chooseSlot(role: Role, fault: Fault): Promise<ServerSlot | undefined> {
    const slots = slotsOf(this.world, role);
    const chosen = slots[fault.pick % slots.length];
    if (role !== 'worker' || fault.pick % IDLE_ONE_IN === 0) return chosen;
    const launch = await this.chooseLaunch(fault);
    return slots.find(({ current }) => current !== null && current === launch?.owner) ?? chosen;
  }

  /** Waits a moment for one, where there is none. */
  private async chooseLaunch({ pick }: Fault): Promise<SeenLaunch | undefined> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      this.world.clis.sample();
      const { live } = this.world.clis;
      const launch = live[pick % Math.max(1, live.length)];
      if (launch || Date.now() > deadline) return launch;
      await sleep(LOOK_MS);
    }
  }
}

const strikeOf = (what: string | null): Strike | null => (what === null ? null : { what });

const nameOf = ({ id, session, slot }: SeenLaunch) => `launch ${id} of session ${session} at ${slot}`;
