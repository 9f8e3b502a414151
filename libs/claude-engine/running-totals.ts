import { type SDKMessage, type SDKResultMessage } from '@anthropic-ai/claude-agent-sdk';

type ModelUsage = SDKResultMessage['modelUsage'];

/** A CLI's costs and tokens are those of all that it has answered: this tells what each answer has added. */
export class RunningTotals {
  private costUsd = 0;
  private usage: ModelUsage = {};

  /** The line as it would be if the CLI had answered this alone. */
  sinceLast<T extends SDKMessage>(line: T): T {
    if (line.type !== 'result') return line;
    const { total_cost_usd: costUsd, modelUsage: usage } = line;
    const own = {
      ...line,
      total_cost_usd: rounded(costUsd - this.costUsd),
      modelUsage: since(usage, this.usage),
    };
    this.costUsd = costUsd;
    this.usage = usage;
    return own;
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
