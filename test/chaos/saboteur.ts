import { setTimeout as sleep } from 'node:timers/promises';
import type { SeenLaunch } from './cli-watch.js';
import type { Fault, FaultKind } from './fault-schedule.js';
import { kill } from './os-processes.js';
import type { RecoveryClock } from './recovery-clock.js';
import type { Role, ServerSlot, StoreName } from './server-slot.js';
import { retarget, slotsOf, type World } from './world.js';

/** What a fault did, for whoever has to understand a failure. */
export interface Deed {
  kind: FaultKind;
  at: number;
  until: number | null;
  what: string;
  /** Whether it hit anything. */
  didHit: boolean;
}

/** Of one answer that a transaction's end or a single statement waits for; of what Bull and the channels ask of Redis. */
const WRITES: Record<StoreName, readonly RegExp[]> = {
  postgres: [/COMMIT/, /UPDATE|INSERT/],
  redis: [/evalsha/i, /publish/i, /./],
};
const DELAYS_MS = [30, 400] as const;
const PATIENCE_MS = 1500;
const LOOK_MS = 50;
const IDLE_ONE_IN = 5;

/** Does what the schedule says, to whom it finds. */
export class Saboteur {
  readonly deeds: Deed[] = [];

  constructor(
    private readonly world: World,
    private readonly clock: RecoveryClock,
  ) {}

  /** Resolves when the fault is over. */
  async commit(fault: Fault): Promise<void> {
    const deed: Deed = { kind: fault.kind, at: Date.now(), until: null, what: '', didHit: false };
    this.deeds.push(deed);
    const told = (what: string | null) => {
      deed.didHit = what !== null;
      deed.what = what ?? 'hit nothing';
    };
    await this.act(fault, told);
    deed.until = Date.now();
  }

  private async act(fault: Fault, tell: (what: string | null) => void): Promise<void> {
    const [verb = '', noun = ''] = splitLast(fault.kind);
    switch (verb) {
      case 'kill -9':
        if (noun === 'worker' || noun === 'api') return this.killServer(noun, fault, tell);
        if (noun === 'cli') return this.killCli(fault, tell);
        return this.killStore(noun as StoreName, fault, tell);
      case 'kill -9 postgres':
        tell(this.world.postgres.killBackend(fault.pick));
        return;
      case 'SIGTERM':
        return this.rollServer(noun as Role, fault, tell);
      case 'SIGSTOP':
        if (noun === 'cli') return this.freezeCli(fault, tell);
        return this.freezeServer(noun as Role, fault, tell);
      case 'FLUSHALL':
        tell(await this.world.redis.flush());
        return;
      default:
        return this.spoilNetwork(verb, noun as StoreName, fault, tell);
    }
  }

  private async killServer(role: Role, fault: Fault, tell: (what: string | null) => void): Promise<void> {
    const slot = await this.chooseSlot(role, fault);
    if (!slot?.current) return tell(null);
    const sessions = this.world.clis.live
      .filter(({ owner }) => owner === slot.current)
      .map(({ session }) => session);
    tell(`${slot.name}, pid ${slot.current.pid}, with ${sessions.length} CLIs, for ${fault.forMs} ms`);
    const at = Date.now();
    await slot.kill();
    if (role === 'worker') await this.clock.workerDied(sessions, at);
    await sleep(fault.forMs);
    slot.start();
  }

  private async rollServer(role: Role, fault: Fault, tell: (what: string | null) => void): Promise<void> {
    const slot = await this.chooseSlot(role, fault);
    if (!slot?.current) return tell(null);
    tell(`${slot.name}, pid ${slot.current.pid}`);
    await slot.terminate();
    slot.start();
  }

  private async freezeServer(role: Role, fault: Fault, tell: (what: string | null) => void): Promise<void> {
    const slot = await this.chooseSlot(role, fault);
    if (!slot?.current) return tell(null);
    tell(`${slot.name}, pid ${slot.current.pid}, for ${fault.forMs} ms`);
    slot.freeze();
    await sleep(fault.forMs);
    slot.thaw();
  }

  private async killCli(fault: Fault, tell: (what: string | null) => void): Promise<void> {
    const launch = await this.chooseLaunch(fault);
    if (!launch) return tell(null);
    const pids = this.world.clis.pidsOf(launch);
    tell(`${describeLaunch(launch)}, pids ${pids.join()}`);
    for (const pid of pids) kill(pid, 'SIGKILL');
  }

  private async freezeCli(fault: Fault, tell: (what: string | null) => void): Promise<void> {
    const launch = await this.chooseLaunch(fault);
    if (!launch) return tell(null);
    const pids = this.world.clis.pidsOf(launch);
    tell(`${describeLaunch(launch)}, pids ${pids.join()}, for ${fault.forMs} ms`);
    for (const pid of pids) kill(pid, 'SIGSTOP');
    await sleep(fault.forMs);
    for (const pid of pids) kill(pid, 'SIGCONT');
  }

  private async killStore(name: StoreName, fault: Fault, tell: (what: string | null) => void): Promise<void> {
    tell(`for ${fault.forMs} ms`);
    const store = this.world[name];
    await store.kill();
    await sleep(fault.forMs);
    await store.restart();
    retarget(this.world);
  }

  private async spoilNetwork(
    how: string,
    store: StoreName,
    fault: Fault,
    tell: (what: string | null) => void,
  ): Promise<void> {
    const slots = fault.isEverywhere
      ? this.world.slots
      : [this.world.slots[fault.pick % this.world.slots.length] as ServerSlot];
    const proxies = slots.map((slot) => slot.proxies[store]);
    const to = WRITES[store][fault.pick % WRITES[store].length] as RegExp;
    const times = 1 + (fault.pick % 4);
    const delayMs = DELAYS_MS[fault.pick % 2] as number;
    const details = { swallow: ` ${times} answers to ${String(to)}`, delay: ` by ${delayMs} ms` }[how] ?? '';
    tell(`${how}${details} at ${slots.map(({ name }) => name).join()} for ${fault.forMs} ms`);
    for (const proxy of proxies) {
      if (how === 'reset') proxy.cut();
      else if (how === 'black hole') proxy.blackHole();
      else if (how === 'delay') proxy.delay(delayMs);
      else proxy.swallowAnswers({ to, times });
    }
    await sleep(fault.forMs);
    for (const proxy of proxies) proxy.restore();
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

/** `black hole postgres` is a black hole, for PostgreSQL. */
function splitLast(kind: string): [string, string] {
  const at = kind.lastIndexOf(' ');
  return [kind.slice(0, at), kind.slice(at + 1)];
}

const describeLaunch = ({ id, session, slot }: SeenLaunch) => `launch ${id} of session ${session} at ${slot}`;
