// `npm run bench:leftovers`: whether anything of a CLI is alive 5 s after its run was cancelled, ran out of time, or lost its
// worker to kill -9. Four at once, LEFTOVERS (50) of each. Every other run hangs while the model owes it an answer, the others
// in a tool that has started programs of its own. Writes its section of docs/benchmarks.md; exits with 1 if anything is alive.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { prepare } from '../scripts/prepared.mjs';

prepare();
const { createDirectiveScript } = await import('../dist/libs/messages-api/index.js');
const { countClisOf, processesOf, programsOf } = await import('./machine.mjs');
const { writeLeftovers } = await import('./report.mjs');
const { withServer } = await import('./server.mjs');
const { cancel, find, submit } = await import('./service-client.mjs');

const RUNS = Number(process.env.LEFTOVERS ?? 50);
const AT_ONCE = 4;
const AFTER_MS = 5_000;
const TIMEOUT_MS = 5_000;
const PATIENCE_MS = 60_000;
const POLL_MS = 50;
/** No other program sleeps that long. */
const FIRST_NAP_S = 10_000_000 + (Date.now() % 10_000_000) * 10;

let naps = 0;
const rows = [];
await withServer(
  async (server) => {
    const worker = await server.startBeside({ ROLE: 'worker' });
    rows.push(await each('cancel', () => inBatches((count) => cancelled(server, worker, count))));
    rows.push(await each('timeout', () => inBatches((count) => timedOut(server, worker, count))));
    await worker.kill('SIGTERM');
    rows.push(await each('`kill -9` of the worker', () => inBatches((count) => killed(server, count))));
  },
  { script: createDirectiveScript(), environment: { ROLE: 'api', LOG_LEVEL: 'warn' } },
);
const { tables, isClean } = writeLeftovers(rows, { runs: RUNS, timeoutMs: TIMEOUT_MS, afterMs: AFTER_MS });
console.log(`\n${tables}`);
process.exit(isClean ? 0 : 1);

async function each(end, measure) {
  process.stdout.write(`\n${end}\n`);
  return { end, ...sum(await measure()) };
}

async function inBatches(measure) {
  const figures = [];
  for (let done = 0; done < RUNS; done += AT_ONCE) {
    figures.push(await measure(Math.min(AT_ONCE, RUNS - done)));
    process.stdout.write(`\r${Math.min(RUNS, done + AT_ONCE)} of ${RUNS}   `);
  }
  return figures;
}

async function cancelled(server, worker, count) {
  const runs = await hanging(server, [worker], count);
  const before = lookAt(runs);
  await Promise.all(runs.map(({ id }) => cancel(server, id)));
  await sleep(AFTER_MS);
  const after = lookAt(runs);
  await expectEnd(server, runs, ({ status }) => status === 'cancelled');
  return { before, after };
}

async function timedOut(server, worker, count) {
  const runs = await hanging(server, [worker], count, { timeoutMs: TIMEOUT_MS });
  const before = lookAt(runs);
  const started = await Promise.all(runs.map(({ id }) => find(server, id)));
  const last = Math.max(...started.map(({ startedAt }) => Date.parse(startedAt)));
  await sleep(last + TIMEOUT_MS + AFTER_MS - Date.now());
  const after = lookAt(runs);
  await expectEnd(server, runs, ({ error }) => error?.code === 'timeout');
  return { before, after };
}

/** One run for each worker. The spares of the worker are to be gone as well. */
async function killed(server, count) {
  const environment = { ROLE: 'worker', WORKER_CONCURRENCY: '1' };
  const workers = await Promise.all(Array.from({ length: count }, () => server.startBeside(environment)));
  const runs = await hanging(server, workers, count);
  if (new Set(runs.map(({ directory }) => directory)).size < count)
    throw new Error('A worker runs nothing that could be left behind.');
  const spares = ({ clis }) => workers.reduce((all, { directory }) => all + countClisOf(directory), -clis);
  const found = lookAt(runs);
  const before = { ...found, spares: spares(found) };
  await Promise.all(workers.map(({ kill }) => kill('SIGKILL')));
  await sleep(AFTER_MS);
  const left = lookAt(runs);
  const after = { ...left, spares: Math.max(0, spares(left)) };
  // Not to be run once more by the next workers.
  await Promise.all(runs.map(({ id }) => cancel(server, id)));
  return { before, after };
}

/** Runs that have come to where nothing happens any more, each with the launch that it has. */
function hanging(server, workers, count, request = {}) {
  return Promise.all(
    Array.from({ length: count }, async () => {
      naps += 1;
      const nap = `sleep ${FIRST_NAP_S + naps}`;
      const isInTool = naps % 2 === 0;
      // The first program hides from who looks for a launch by its mark.
      const programs = isInTool ? `env -i setsid ${nap} & ${nap}` : 'true';
      const command = `echo $CLAUDE_RUNNER_LAUNCH > launch; ${programs}`;
      const prompt = `${nap}\n[[tool Bash ${JSON.stringify({ command })}]]\n[[hang after=1]]`;
      const { id, sessionId } = await submit(server, { prompt, allowedTools: ['Bash'], ...request });
      const asked = () => server.messages.requests.filter((each) => each.prompt === prompt).length;
      await until(`${id} hangs`, () => (isInTool ? programsOf(nap).length > 1 : asked() > 1));
      const place = ({ directory }) => join(directory, 'engine/workspaces', sessionId, 'launch');
      const worker = workers.find((one) => existsSync(place(one)));
      return { id, nap, directory: worker.directory, launch: readFileSync(place(worker), 'utf8').trim() };
    }),
  );
}

/** How many runs have a CLI that is alive, or whatever else of it, and how many have programs of their tools. */
function lookAt(runs) {
  return {
    clis: runs.filter(({ launch }) => processesOf(launch).length > 0).length,
    programs: runs.filter(({ nap }) => programsOf(nap).length > 0).length,
    spares: 0,
  };
}

async function expectEnd(server, runs, isIt) {
  for (const { id } of runs) {
    const process = await find(server, id);
    if (!isIt(process)) throw new Error(`It has not ended so: ${JSON.stringify(process)}`);
  }
}

async function until(what, isSo) {
  const deadline = performance.now() + PATIENCE_MS;
  while (!isSo()) {
    if (performance.now() > deadline) throw new Error(`Not within ${PATIENCE_MS} ms: ${what}.`);
    await sleep(POLL_MS);
  }
}

function sum(figures) {
  const of = (when) => {
    const total = (what) => figures.reduce((sofar, figure) => sofar + figure[when][what], 0);
    return { clis: total('clis'), programs: total('programs'), spares: total('spares') };
  };
  return { before: of('before'), after: of('after') };
}
