// `npm run bench:appends`: how many events a second the logs of running processes take in, all the way: through the appender of
// a worker into PostgreSQL, embedded and durable as it is by default, and out over Redis. Beside it the plain way, which writes
// each event by itself. Writes its section of docs/benchmarks.md.
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { prepare } from '../scripts/prepared.mjs';

prepare();
const { writeSection } = await import('./page.mjs');
const { openWorker } = await import('./worker.mjs');

const RUNS = [4, 16];
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 9);
const EVENTS = 40_000;
const PLAIN_EVENTS = 2_000;
const BAR = 20_000;

/** Some 200 bytes of JSON. Nothing is joined: each is an entry of the log of its own. */
const toolUse = (n) => ({
  type: 'tool_use',
  toolUseId: `toolu_${String(n).padStart(24, '0')}`,
  name: 'Read',
  input: {
    file_path: `/work/src/some/folder/of/a/project/that/is/not/small/file-${n}.ts`,
    offset: n,
    limit: 200,
  },
});

async function byAppender(worker, runs, events) {
  const logs = await worker.startRuns(runs);
  return perSecond(events, () =>
    Promise.all(
      logs.map(async ({ log }) => {
        for (let n = 0; n < events / runs; n += 1) await log.append(toolUse(n));
        await log.settled();
      }),
    ),
  );
}

async function byCreateMany(worker, runs, events) {
  const logs = await worker.startRuns(runs);
  return perSecond(events, () =>
    Promise.all(
      logs.map(async ({ processId, lastSeq }) => {
        for (let n = 0; n < events / runs; n += 1)
          await worker.createOne(processId, lastSeq + 1 + n, toolUse(n));
      }),
    ),
  );
}

async function perSecond(events, write) {
  const start = performance.now();
  await write();
  return (events / (performance.now() - start)) * 1000;
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const round = (value) => Math.round(value / 100) * 100;
const shown = (value) => round(value).toLocaleString('en');

const directory = mkdtempSync(join(tmpdir(), 'claude-runner-bench-'));
const worker = await openWorker(directory);
const rows = [];
try {
  for (const runs of RUNS) {
    const [batched, plain] = [[], []];
    for (let n = -1; n < ROUNDS; n += 1) {
      const figures = [
        await byAppender(worker, runs, EVENTS),
        await byCreateMany(worker, runs, PLAIN_EVENTS),
      ];
      if (n >= 0) [batched, plain].forEach((column, index) => column.push(figures[index]));
      process.stdout.write(`\r${runs} processes: ${n < 0 ? 'warming up' : `${n + 1} of ${ROUNDS}`}   `);
    }
    rows.push(
      `| ${[runs, shown(median(batched)), `${shown(Math.min(...batched))} – ${shown(Math.max(...batched))}`, shown(median(plain))].join(' | ')} |`,
    );
  }
} finally {
  await worker.close();
  rmSync(directory, { recursive: true, force: true });
}

const tables = [
  '| running processes | events/s: median | lowest – highest | one `createMany` an event: median |',
  '| --- | --- | --- | --- |',
  ...rows,
].join('\n');
writeSection(
  'appends',
  `## Appends

\`npm run bench:appends\` writes this section. Events of ${JSON.stringify(toolUse(0)).length} bytes that are not joined, as fast as they are taken, through the appender of one
worker: into PostgreSQL (embedded, durable), and out over Redis. ${EVENTS.toLocaleString('en')} of them a round, ${ROUNDS} rounds. The bar is ${BAR.toLocaleString('en')} events/s with 4
processes or more. ${availableParallelism()} cores, which Node, PostgreSQL and Redis share; Node ${process.versions.node}.

${tables}`,
);
console.log(`\n${tables}`);
process.exit();
