import { setTimeout as sleep } from 'node:timers/promises';
import type { ServerSlot } from './server-slot.js';
import type { World } from './world.js';

const LOOK_MS = 50;
const PATIENCE_MS = 60_000;

/** How long a caller waits for the truth when nothing else goes wrong: kills the worker that runs a process, and asks. */
export async function measureCalmDeath(world: World, seed: number): Promise<number> {
  const { client } = world.callers.at(seed);
  const mark = `chaos-${seed}-0-end`;
  const { id, sessionId } = await client.submit({ prompt: `${mark}\n[[hang]]` });
  const slot = await until('its CLI to ask the model', () =>
    world.model.calls.some((call) => call.mark === mark) ? runnerOf(world, sessionId) : undefined,
  );
  const killedAt = performance.now();
  await slot.kill();
  const { status } = await client.untilEnded(id);
  const tookMs = Math.round(performance.now() - killedAt);
  if (status !== 'failed') throw new Error(`Process ${id}, whose worker was killed, is ${status}.`);
  slot.start();
  await slot.untilReady(PATIENCE_MS);
  return tookMs;
}

function runnerOf({ clis, slots }: World, sessionId: string): ServerSlot | undefined {
  clis.sample();
  const launch = clis.live.find(({ session }) => session === sessionId);
  return slots.find(({ name }) => name === launch?.slot);
}

async function until<T>(what: string, find: () => T | undefined): Promise<T> {
  const deadline = Date.now() + PATIENCE_MS;
  while (Date.now() < deadline) {
    const found = find();
    if (found !== undefined) return found;
    await sleep(LOOK_MS);
  }
  throw new Error(`Waited ${PATIENCE_MS} ms for ${what}.`);
}
