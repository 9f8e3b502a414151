import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { NO_SUPPLY } from '../support/no-supply.js';
import { Callers } from './callers.js';
import { CliWatch } from './cli-watch.js';
import { ModelWitness } from './model-witness.js';
import { type Role, ServerSlot, type SlotOptions } from './server-slot.js';
import { ChaosPostgres, ChaosRedis } from './stores.js';
import type { Timings } from './timings.js';

/** Also of a server that starts while the machine is busy with other tests. */
const READY_PATIENCE_MS = 60_000;
/** Short, so that a shutdown has to end runs as well. */
const SHUTDOWN_GRACE_MS = 1500;
const EXECUTE_MAX_WAIT_MS = 8000;

const ROLES: readonly Role[] = ['api', 'api', 'worker', 'worker'];

/** Stores, servers and the model: everything that a run hits or asks. Several runs may share one. */
export interface World {
  readonly timings: Timings;
  readonly postgres: ChaosPostgres;
  redis: ChaosRedis;
  readonly model: ModelWitness;
  readonly slots: readonly ServerSlot[];
  readonly callers: Callers;
  readonly clis: CliWatch;
  /** What no server should have done. */
  readonly problems: string[];
}

export async function openWorld(timings: Timings): Promise<World> {
  const [postgres, redis, model] = await Promise.all([
    ChaosPostgres.start(),
    ChaosRedis.start(true),
    ModelWitness.start(),
  ]);
  const problems: string[] = [];
  const slots = await openSlots({
    environment: environmentFor(timings, model.url),
    stores: { postgres: postgres.url, redis: redis.url },
    onProblem: (what) => problems.push(what),
  });
  const key = await startAll(slots);
  const callers = new Callers(slotsOf({ slots }, 'api'), key);
  const clis = new CliWatch(slots);
  clis.start();
  return { timings, postgres, redis, model, slots, callers, clis, problems };
}

export async function closeWorld({ clis, slots, postgres, redis, model }: World): Promise<void> {
  await clis.stop();
  await Promise.all(slots.map((slot) => slot.close()));
  await Promise.all([postgres.stop(), redis.stop(), model.close()]);
}

export function slotsOf({ slots }: Pick<World, 'slots'>, role: Role): ServerSlot[] {
  return slots.filter((slot) => slot.role === role);
}

/** Points every proxy at where the stores are now. */
export function retarget({ slots, postgres, redis }: World): void {
  for (const { proxies } of slots) {
    proxies.postgres.retarget(postgres.url);
    proxies.redis.retarget(redis.url);
  }
}

/** Another Redis, empty, where the kind that a run wants is not the one that is there. */
export async function useRedis(world: World, { durable }: { durable: boolean }): Promise<void> {
  if (world.redis.isDurable === durable) return;
  world.redis = await world.redis.successor(durable);
  retarget(world);
}

/** Undoes every fault. Resolves when all servers are ready. @throws Error naming the one that is not */
export async function heal(world: World): Promise<void> {
  await Promise.all([world.postgres.restart(), world.redis.restart()]);
  retarget(world);
  for (const slot of world.slots) {
    slot.proxies.postgres.restore();
    slot.proxies.redis.restore();
    slot.thaw();
    slot.start();
  }
  await Promise.all(world.slots.map((slot) => slot.untilReady(READY_PATIENCE_MS)));
}

const openSlots = (options: Omit<SlotOptions, 'name' | 'role'>) =>
  Promise.all(
    ROLES.map((role, index) => ServerSlot.open({ ...options, role, name: `${role}-${index % 2}` })),
  );

/** The first one migrates, and writes the first key into its data directory. @returns that */
async function startAll(slots: ServerSlot[]): Promise<string> {
  const [first, ...others] = slots as [ServerSlot, ...ServerSlot[]];
  first.start();
  await first.untilReady(READY_PATIENCE_MS);
  for (const slot of others) slot.start();
  await Promise.all(others.map((slot) => slot.untilReady(READY_PATIENCE_MS)));
  return readFileSync(join(first.dataDirectory, 'api-key'), 'utf8').trim();
}

const environmentFor = (timings: Timings, modelUrl: string): NodeJS.ProcessEnv => ({
  NODE_ENV: 'test',
  LOG_LEVEL: 'warn',
  ANTHROPIC_API_KEY: 'sk-ant-chaos',
  ANTHROPIC_BASE_URL: modelUrl,
  CLAUDE_API_MAX_RETRIES: '1',
  ...NO_SUPPLY,
  CLAUDE_BWRAP_PATH: process.env.TEST_BWRAP_PATH,
  EXECUTE_MAX_WAIT_MS: String(EXECUTE_MAX_WAIT_MS),
  SHUTDOWN_GRACE_MS: String(SHUTDOWN_GRACE_MS),
  WORKER_CONCURRENCY: '2',
  ...Object.fromEntries(Object.entries(timings).map(([name, value]) => [name, String(value)])),
});
