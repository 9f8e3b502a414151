import { type LaunchedCli } from './launched-cli.js';

/** CLIs that nobody wants any more, until nothing of them is left. */
export class Departures {
  private readonly leaving = new Map<LaunchedCli, { workspaceKey: string | null; gone: Promise<void> }>();

  /** Ends one. @param workspaceKey whose folder it works in, where it is anybody's */
  end(cli: LaunchedCli, workspaceKey: string | null = null): Promise<void> {
    const gone = cli.discard().finally(() => this.leaving.delete(cli));
    this.leaving.set(cli, { workspaceKey, gone });
    return gone;
  }

  get clis(): { cli: LaunchedCli; workspaceKey: string | null }[] {
    return [...this.leaving].map(([cli, { workspaceKey }]) => ({ cli, workspaceKey }));
  }

  /** Resolves when none is left that works in this folder. */
  async from(workspaceKey: string): Promise<void> {
    const those = [...this.leaving.values()].filter((departure) => departure.workspaceKey === workspaceKey);
    await Promise.all(those.map(({ gone }) => gone));
  }

  async all(): Promise<void> {
    await Promise.all([...this.leaving.values()].map(({ gone }) => gone));
  }
}
