import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { writeSection } from './page.mjs';

/** Writes its section of docs/benchmarks.md. @returns its tables */
export function writeReport({ rounds, shares, crowds, serverMemory }) {
  const waits = [
    '| | bare CLI: median | p95 | through the service: median | p95 | service ÷ bare, pair by pair: median | bar |',
    '|---|---|---|---|---|---|---|',
    wait('new conversation, to the first text', rounds, 'first', 'firstTextMs', '≤ 0.30'),
    wait('new conversation, to the result', rounds, 'first', 'resultMs', ''),
    wait('second turn, to the first text', rounds, 'second', 'firstTextMs', '≤ 0.15'),
    wait('second turn, to the result', rounds, 'second', 'resultMs', ''),
  ];
  const amounts = [
    '| four at once | bare CLI: median | through the service: median | service ÷ bare: median | bar |',
    '|---|---|---|---|---|',
    amount(
      'new conversations a second',
      crowds.map(({ runs }) => runs),
      '≥ 0.9',
    ),
    amount(
      'turns a second',
      crowds.map(({ turns }) => turns),
      '≥ 8',
    ),
    amount(
      'peak memory of the CLIs',
      crowds.map(({ memory }) => memory),
      '≤ 1.6',
      mib,
    ),
  ];
  const ownShares = [
    "| the service's own share, one at a time | runs | median | p95 | bar |",
    '|---|---|---|---|---|',
    ownShare('just started: from the fifth turn on, in turns with the bare CLI', shares.afterStart),
    ownShare('in service: after these rounds and the crowds, alone', shares.inService),
  ];
  const tables = [waits, ownShares, amounts].map((rows) => rows.join('\n')).join('\n\n');
  writeSection('conversations', `${preamble(rounds.length, crowds.length, serverMemory)}\n${tables}`);
  return tables;
}

/**
 * Writes its section of docs/benchmarks.md.
 * @returns its tables, and whether every run had something that could be left, and nothing is
 */
export function writeLeftovers(rows, { runs, timeoutMs, afterMs }) {
  const seconds = afterMs / 1000;
  const tables = [
    `| ended by | runs | CLIs alive before | of them with programs of a tool | alive ${seconds} s after: CLIs | programs | bar |`,
    '|---|---|---|---|---|---|---|',
    ...rows.map(({ end, before, after }) => {
      const cells = [runs, before.clis, before.programs, after.clis + after.spares, after.programs, 0];
      return `| ${[end, ...cells].join(' | ')} |`;
    }),
  ].join('\n');
  const text = `## Leftovers

\`npm run bench:leftovers\` writes this section, and \`npm run bench\` does in the end. Runs that hang are ended: by a cancel, by
\`timeoutMs: ${timeoutMs}\`, or with their worker, a process for each run, which gets SIGKILL. Every other one hangs while the model owes it an
answer, the others in a Bash command with two programs, one of which has left its session and its environment. Four at once,
with the sandbox, spares and kept CLIs as they come; with the killed workers ${rows.reduce((sum, { before }) => sum + before.spares, 0)} spares were to go, and count among the CLIs
after. ${availableParallelism()} cores, Node ${process.versions.node}.`;
  writeSection('leftovers', `${text}\n\n${tables}`);
  const isClean = rows.every(
    ({ before, after }) => before.clis === runs && after.clis + after.spares + after.programs === 0,
  );
  return { tables, isClean };
}

function wait(name, rounds, turn, figure, bar) {
  const of = (contender) => rounds.map((round) => round[contender][turn][figure]);
  const ratios = rounds.map(({ bare, service }) => service[turn][figure] / bare[turn][figure]);
  const cells = [of('bare'), of('service')].flatMap((values) => [
    ms(quantile(values, 0.5)),
    ms(quantile(values, 0.95)),
  ]);
  return `| ${[name, ...cells, quantile(ratios, 0.5).toFixed(2), bar].join(' | ')} |`;
}

function ownShare(name, shares) {
  const cells = [shares.length, ms(quantile(shares, 0.5)), ms(quantile(shares, 0.95))];
  return `| ${[name, ...cells, '≤ 25 ms at p95'].join(' | ')} |`;
}

function amount(name, pairs, bar, show = (value) => value.toFixed(1)) {
  const median = (values) => quantile(values, 0.5);
  const cells = ['bare', 'service'].map((contender) => show(median(pairs.map((pair) => pair[contender]))));
  const ratio = median(pairs.map(({ bare, service }) => service / bare)).toFixed(2);
  return `| ${[name, ...cells, ratio, bar].join(' | ')} |`;
}

const ms = (value) => `${Math.round(value)} ms`;
const mib = (value) => `${Math.round(value)} MiB`;

function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)];
}

function preamble(runs, crowds, serverMemory) {
  const { version } = JSON.parse(
    readFileSync('node_modules/@anthropic-ai/claude-agent-sdk/package.json', 'utf8'),
  );
  const size = Math.round(totalmem() / 2 ** 30);
  return `## Conversations

\`npm run bench\` writes this section. One conversation at a time, ${runs} rounds in which both take turns: the bare \`claude -p\`, and for its
second turn \`claude -p --resume\`, as a script would spawn them, and \`POST /execute\` with \`Accept: text/event-stream\` through the service:
queue, database (durable), live stream, sandbox and all. Then four at once, ${crowds} rounds: 16 conversations as \`xargs -P4\` would
run them, and turns of four conversations. In the end one at a time again, through the service alone. The CLI is the
real one (Agent SDK ${version}); the Messages API is scripted and answers at once,
so that only the CLI's time and ours are measured. ${availableParallelism()} cores, ${size} GiB, Node ${process.versions.node}.

The service is configured as it comes, with four slots. A new conversation finds a spare, while nobody asks for more at once; a
second turn finds the CLI that the first one left. Its CLIs run without their optimizing compilers, the bare ones as they come
([ADR 30](adr/0030-clis-are-not-optimized.md)). Memory is PSS, in which what is shared counts in parts; the server, one
process for all of them, has another ${mib(serverMemory)}.

Its own share of the time to the first text is from the submit to the CLI, what the CLI's question waited for leave, and from the
CLI's first word to the caller. The bar names no state of the server, and is held against both: one that has just started, whose
code Node has not optimized yet, and one that has been in service for some minutes.
`;
}
