import { setTimeout as sleep } from 'node:timers/promises';
import type { ChaosPostgres } from './stores.js';

const LOOK_MS = 50;

interface Row extends Record<string, unknown> {
  id: string;
  status: string;
  attempt: number;
}

/** Measures how long a killed worker's processes show a state that is no longer true. */
export class RecoveryClock {
  readonly timesMs: number[] = [];
  private readonly running: Promise<void>[] = [];
  private readonly over = new AbortController();

  constructor(private readonly postgres: ChaosPostgres) {}

  /** @param sessions those whose CLIs the worker had, as the process table shows them */
  async workerDied(sessions: string[], at: number): Promise<void> {
    const rows = await this.find(sessions).catch(() => []); // a store is away as well: no measure of the worker's death
    for (const row of rows) this.running.push(this.untilVisible(row, at));
  }

  /** Resolves when everything that is measured is visible, or given up. */
  async stop(): Promise<void> {
    this.over.abort();
    await Promise.all(this.running);
  }

  private find(sessions: string[]): Promise<Row[]> {
    return this.postgres.query<Row>(
      `SELECT id, status::text, attempt FROM processes WHERE session_id = ANY($1::uuid[]) AND status = 'running'`,
      [sessions],
    );
  }

  private async untilVisible({ id, attempt }: Row, at: number): Promise<void> {
    const { signal } = this.over;
    while (!signal.aborted) {
      const rows = await this.postgres
        .query<Row>('SELECT id, status::text, attempt FROM processes WHERE id = $1', [id])
        .catch(() => []);
      const now = rows[0];
      if (now && (now.status !== 'running' || now.attempt !== attempt)) {
        this.timesMs.push(Date.now() - at);
        return;
      }
      await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}
