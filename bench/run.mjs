// `npm run bench`: how long a caller waits for Claude through the service, beside what the caller would use instead.
// Everything is real but the model: the CLI asks a scripted Messages API that answers at once, so that what is measured is
// ours and the CLI's. The contenders take turns (A B A B …): these figures are compared pair by pair, since a machine's speed
// drifts. Writes its section of docs/benchmarks.md.
import { prepare } from '../scripts/prepared.mjs';

prepare();
const { writeReport } = await import('./report.mjs');
const { withServer } = await import('./server.mjs');
const { bareCli } = await import('./bare-cli.mjs');
const { throughService } = await import('./service-client.mjs');

const RUNS = Number(process.env.BENCH_RUNS ?? 30);
const WARM_UP = 2;

const rounds = [];
await withServer(async ({ url, key, messagesUrl }) => {
  const contenders = [
    ['bare', () => bareCli(messagesUrl)],
    ['service', () => throughService(url, key)],
  ];
  for (let round = -WARM_UP; round < RUNS; round += 1) {
    const figures = {};
    // Who goes first changes, so that neither always finds the machine as the other left it.
    for (const [name, run] of round % 2 === 0 ? contenders : contenders.toReversed())
      figures[name] = await run();
    if (round >= 0) rounds.push(figures);
    process.stdout.write(`\r${round < 0 ? 'warming up' : `${round + 1} of ${RUNS}`}   `);
  }
});
console.log(`\n${writeReport(rounds)}`);
process.exit();
