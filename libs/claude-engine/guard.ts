import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { builtProgram } from './built-program.js';
import { type EngineNotice } from './engine-notice.js';
import { type GuardOrders, type GuardReport } from './guard-program.js';
import { within } from './launch-end.js';
import { thisProcess } from './process-table.js';

export interface GuardOptions {
  /** After so long without a heartbeat the CLIs are killed. Counts from the first one on. */
  silenceMs: number;
}

/** A guard that dies sooner than this is not replaced before. */
const RESTART_PAUSE_MS = 1000;
const CLOSE_PATIENCE_MS = 2000;

/**
 * A small process beside this one that kills our CLIs when we cannot: stopped, with a blocked event loop, or dead. It hears
 * us through a pipe; the system closes that for us whatever we die of.
 */
export class Guard {
  private child: ChildProcess | null = null;
  private restart: NodeJS.Timeout | null = null;
  private readonly struck = new Set<string>();
  private hasBeaten = false;
  private isClosed = false;

  constructor(
    private readonly options: GuardOptions & {
      launches: string;
      onNotice: (notice: EngineNotice) => void;
    },
  ) {
    this.start();
  }

  get pid(): number | null {
    return this.child?.pid ?? null;
  }

  /** Says that we are well. */
  heartbeat(): void {
    this.hasBeaten = true;
    this.child?.stdin?.write('.');
  }

  /** Whether it was the guard that killed this launch's CLI. */
  hasStruck(launchId: string): boolean {
    return this.struck.has(launchId);
  }

  /** Ends it. It looks a last time that nothing of ours is left. */
  async close(): Promise<void> {
    this.isClosed = true;
    if (this.restart) clearTimeout(this.restart);
    const { child } = this;
    if (!child?.pid || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.ref();
    child.stdin?.end();
    if (await within(CLOSE_PATIENCE_MS, exited)) return;
    child.kill('SIGKILL');
    await exited;
  }

  private start(): void {
    const { launches, silenceMs, onNotice } = this.options;
    const orders: GuardOrders = { launches, silenceMs, owner: thisProcess() };
    const began = performance.now();
    // A session of its own: no signal to our process group, and no Ctrl-C, reaches it.
    const child = spawn(process.execPath, [builtProgram('guard-program.js'), JSON.stringify(orders)], {
      cwd: '/',
      env: {},
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    this.child = child;
    // Whoever forgets to close the engine can end all the same; then the guard does too.
    child.unref();
    for (const pipe of [child.stdin, child.stdout]) {
      pipe.on('error', () => undefined);
      (pipe as unknown as { unref: () => void }).unref();
    }
    createInterface({ input: child.stdout }).on('line', (line) => this.hear(line));
    const onEnd = (reason: string) => {
      if (this.isClosed || this.child !== child) return;
      this.child = null;
      onNotice({ kind: 'guard_lost', reason });
      const pause = performance.now() - began < RESTART_PAUSE_MS ? RESTART_PAUSE_MS : 0;
      this.restart = setTimeout(() => this.start(), pause).unref();
    };
    child.once('error', (error) => onEnd(String(error)));
    child.once('exit', (code, signal) => onEnd(`exit ${String(code ?? signal)}`));
    if (this.hasBeaten) this.heartbeat();
  }

  private hear(line: string): void {
    const { launchIds } = JSON.parse(line) as GuardReport;
    for (const id of launchIds) this.struck.add(id);
    this.options.onNotice({ kind: 'guard_struck', launchIds });
  }
}
