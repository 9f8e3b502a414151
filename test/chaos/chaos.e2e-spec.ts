import { measureCalmDeath } from './calm-death.js';
import { explain, NOTHING_TO_EXPLAIN } from './explain.js';
import { Report } from './report.js';
import { runChaos, type RunResult } from './run.js';
import { DEFAULT, SHORT, timingsFrom } from './timings.js';
import { closeWorld, openWorld, type World } from './world.js';

/** Those of every `npm test`: together they commit every kind of fault. */
const FIXED_SEEDS = [1, 2, 3];
const RUN_TIMEOUT_MS = 300_000;

const { CHAOS_SEED, CHAOS_RUNS } = process.env;
const isLong = CHAOS_RUNS !== undefined;
const timings = timingsFrom(process.env, isLong ? DEFAULT : SHORT);
const seeds = seedsToRun();

/** CHAOS_SEED alone runs one; CHAOS_RUNS runs so many, from CHAOS_SEED on. */
function seedsToRun(): number[] {
  if (CHAOS_SEED === undefined && !isLong) return FIXED_SEEDS;
  const first = Number(CHAOS_SEED ?? 1);
  return Array.from({ length: Number(CHAOS_RUNS ?? 1) }, (_, index) => first + index);
}

const summarise = (seed: number, { violations, falseRefusals, phasesMs }: RunResult) =>
  [
    `seed ${seed}: ${violations.length} broken promises; ${JSON.stringify(phasesMs)}`,
    ...falseRefusals.map(
      ({ mark, told, processId }) => `  ${mark} was told ${told}, and was made: ${processId}`,
    ),
  ].join('\n');

describe('while servers, stores and the network fail at random', () => {
  const report = new Report(timings);
  let world: World | null = null;

  const leaveWorld = async () => {
    const leaving = world;
    world = null;
    if (leaving) await closeWorld(leaving);
  };
  afterAll(async () => {
    await leaveWorld();
    if (report.isEmpty) return;
    process.stderr.write(`\n${report.toString()}\n`);
    if (isLong) report.writeInto('docs/durability.md');
  }, RUN_TIMEOUT_MS);

  it.each(seeds)(
    'nothing accepted is lost, nothing runs twice and nothing leaks (seed %i)',
    async (seed) => {
      world ??= await openWorld(timings);
      const result = await runChaos(world, seed);
      report.add(result);
      if (isLong && result.violations.length === 0) report.addCalmDeath(await measureCalmDeath(world, seed));
      process.stderr.write(`${summarise(seed, result)}\n`);
      // What a run has left that went wrong must not be the next one's.
      if (result.violations.length > 0) await leaveWorld();
      const explanation = explain(result.violations, result.evidence, timings);
      // Jest shows failures when all is over, which may be tomorrow.
      if (isLong && result.violations.length > 0) process.stderr.write(`${explanation}\n`);
      expect(explanation).toBe(NOTHING_TO_EXPLAIN);
    },
    RUN_TIMEOUT_MS,
  );
});
