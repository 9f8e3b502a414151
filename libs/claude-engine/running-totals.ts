import { type SDKMessage, type SDKResultMessage } from '@anthropic-ai/claude-agent-sdk';

type ModelUsage = SDKResultMessage['modelUsage'];

interface Totals {
  costUsd: number;
  usage: ModelUsage;
}

/** A CLI's costs and tokens are those of all that it has answered: this tells what its occupant has added. */
export class RunningTotals {
  private before: Totals = { costUsd: 0, usage: {} };
  private latest = this.before;

  /** What has been answered so far counts for nobody who comes now. */
  beginAnew(): void {
    this.before = this.latest;
  }

  /** The line as it would be if the CLI had answered nobody before. */
  since<T extends SDKMessage>(line: T): T {
    if (line.type !== 'result') return line;
    const { total_cost_usd: costUsd, modelUsage: usage } = line;
    const { before } = this;
    this.latest = { costUsd, usage };
    return {
      ...line,
      total_cost_usd: rounded(costUsd - before.costUsd),
      modelUsage: since(usage, before.usage),
    };
  }
}

/** Differences of sums are not exact. */
const rounded = (usd: number) => Math.round(usd * 1e9) / 1e9;

function since(usage: ModelUsage, before: ModelUsage): ModelUsage {
  const models = Object.entries(usage).map(([model, figures]) => {
    const earlier = before[model];
    return [model, earlier ? subtract(figures, earlier) : figures] as const;
  });
  return Object.fromEntries(models);
}

function subtract<T extends object>(figures: T, earlier: T): T {
  const differences = Object.entries(figures).map(([name, value]: [string, unknown]) => {
    const before = earlier[name as keyof T];
    return [name, typeof value === 'number' && typeof before === 'number' ? value - before : value] as const;
  });
  return Object.fromEntries(differences) as T;
}
