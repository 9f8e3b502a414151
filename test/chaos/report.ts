import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { FAULT_KINDS } from './fault-schedule.js';
import type { Breach } from './invariants.js';
import type { RunResult } from './run.js';
import type { Timings } from './timings.js';

const BEGIN = '<!-- chaos:begin -->';
const END = '<!-- chaos:end -->';

/** Adds up what runs have come to. */
export class Report {
  private readonly results: RunResult[] = [];
  private readonly calmDeathsMs: number[] = [];

  constructor(private readonly timings: Timings) {}

  add(result: RunResult): void {
    this.results.push(result);
  }

  /** How long a worker's kill -9 took to be seen while nothing else went wrong. */
  addCalmDeath(tookMs: number): void {
    this.calmDeathsMs.push(tookMs);
  }

  get isEmpty(): boolean {
    return this.results.length === 0;
  }

  /** As a page of Markdown, and for people at a terminal. */
  toString(): string {
    return [...this.totals(), '', ...this.faults(), '', this.conditions()].join('\n');
  }

  /** Writes the tables into a page, in place of those of the last time. */
  writeInto(page: string): void {
    const text = existsSync(page) ? readFileSync(page, 'utf8') : `# Durability\n\n${BEGIN}\n${END}\n`;
    const [before, rest = ''] = text.includes(BEGIN) ? text.split(BEGIN) : [`${text.trimEnd()}\n\n`];
    const after = rest.includes(END) ? rest.slice(rest.indexOf(END) + END.length) : '\n';
    writeFileSync(page, `${before ?? ''}${BEGIN}\n\n${this.toString()}\n\n${END}${after}`);
  }

  private totals(): string[] {
    const breaches = (breach: Breach) =>
      this.sum(({ violations }) => violations.filter((violation) => violation.breach === breach).length);
    const recovery = this.results.flatMap(({ recoveryMs }) => recoveryMs);
    const rows: [string, string | number][] = [
      ['runs', this.results.length],
      ['prompts submitted', this.sum(({ evidence }) => evidence.ledger.submissions.length)],
      ['processes accepted', this.sum(({ evidence }) => evidence.rows.length)],
      ['requests to the model', this.sum(({ evidence }) => evidence.calls.length)],
      ['readers', this.sum(({ evidence }) => evidence.ledger.transcripts.length)],
      [
        '… and their connections',
        this.sum(({ evidence }) => sumOf(evidence.ledger.transcripts, (t) => t.connections)),
      ],
      [
        'kills and other faults',
        this.sum(({ evidence }) => evidence.deeds.filter(({ what }) => what !== null).length),
      ],
      ['**lost**', breaches('lost')],
      ['**doubled**', breaches('doubled')],
      ['**leaked CLIs**', breaches('leaked')],
      ['**gaps**', breaches('gap')],
      ['**other broken promises**', breaches('other')],
      [
        'refused, and made all the same (the answer of the commit was lost)',
        this.sum((r) => r.falseRefusals.length),
      ],
      ["from a worker's kill -9 to the visible state, nothing else being wrong", spread(this.calmDeathsMs)],
      ['… while stores and other servers fail as well', spread(recovery)],
    ];
    return table(['', ''], rows);
  }

  private faults(): string[] {
    const count = (kind: string) =>
      this.sum(
        ({ evidence }) => evidence.deeds.filter((deed) => deed.kind === kind && deed.what !== null).length,
      );
    return table(
      ['fault', 'times'],
      FAULT_KINDS.map((kind) => [kind, count(kind)]),
    );
  }

  private conditions(): string {
    const timings = Object.entries(this.timings).map(([name, value]) => `\`${name}=${String(value)}\``);
    const seeds = this.results.map(({ evidence }) => evidence.schedule.seed);
    const range = seeds.length > 5 ? `${Math.min(...seeds)} to ${Math.max(...seeds)}` : seeds.join(', ');
    return `Seeds ${range}; ${timings.join(', ')}. Two API servers and two workers with two slots each.`;
  }

  private sum(of: (result: RunResult) => number): number {
    return sumOf(this.results, of);
  }
}

function table(head: string[], rows: [string, string | number][]): string[] {
  return [
    `| ${head.join(' | ')} |`,
    `| ${head.map(() => '---').join(' | ')} |`,
    ...rows.map((row) => `| ${row.join(' | ')} |`),
  ];
}

function spread(ms: number[]): string {
  if (ms.length === 0) return 'not measured';
  const [median, p95, max] = [0.5, 0.95, 1].map((q) => `${quantile(ms, q)} ms`);
  return `median ${String(median)}, p95 ${String(p95)}, max ${String(max)} (${ms.length} processes)`;
}

function quantile(values: number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? 0;
}

const sumOf = <T>(items: readonly T[], of: (item: T) => number) =>
  items.reduce((sum, item) => sum + of(item), 0);
