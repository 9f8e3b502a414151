import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { writeSection } from './page.mjs';

const FIGURES = [
  ['firstTextMs', 'to the first text'],
  ['resultMs', 'to the result'],
];

/** Writes its section of docs/benchmarks.md. @returns its tables */
export function writeReport(rounds) {
  const tables = [
    '| | bare `claude -p`: median | p95 | through the service: median | p95 | service ÷ bare, pair by pair: median |',
    '|---|---|---|---|---|---|',
    ...FIGURES.map(([figure, name]) => row(name, figure, rounds)),
  ].join('\n');
  writeSection('conversations', `${preamble(rounds.length)}\n${tables}`);
  return tables;
}

function row(name, figure, rounds) {
  const of = (contender) => rounds.map((round) => round[contender][figure]);
  const ratios = rounds.map(({ bare, service }) => service[figure] / bare[figure]);
  const ms = (value) => `${Math.round(value)} ms`;
  const cells = [of('bare'), of('service')].flatMap((values) => [
    ms(quantile(values, 0.5)),
    ms(quantile(values, 0.95)),
  ]);
  return `| ${[name, ...cells, quantile(ratios, 0.5).toFixed(2)].join(' | ')} |`;
}

function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)];
}

function preamble(runs) {
  const { version } = JSON.parse(
    readFileSync('node_modules/@anthropic-ai/claude-agent-sdk/package.json', 'utf8'),
  );
  const memory = Math.round(totalmem() / 2 ** 30);
  return `## Conversations

\`npm run bench\` writes this section. A new conversation each time, one at a time, ${runs} rounds in which both take turns: the bare
\`claude -p\` as a script would spawn it, and \`POST /execute\` with \`Accept: text/event-stream\` through the service: queue,
database (durable), live stream and all. The CLI is the real one (Agent SDK ${version}); the Messages API is scripted and answers
at once, so that only the CLI's time and ours are measured. ${availableParallelism()} cores, ${memory} GiB, Node ${process.versions.node}.

The service starts a CLI for every run, as the bare one does. Spares, started before their prompt is known, come later.
`;
}
