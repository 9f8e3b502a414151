import { type SpawnOptions } from '@anthropic-ai/claude-agent-sdk';
import { type ChildProcess } from 'node:child_process';
import { deferred } from './deferred.js';
import { type LaunchFolders } from './engine-folders.js';
import { type Usage } from './engine-event.js';
import { type EngineNotice } from './engine-notice.js';
import { KeyProxy } from './key-proxy.js';
import { endsByItself, killRemains, within } from './launch-end.js';
import { type LaunchRecord, writeLaunchRecord } from './launch-record.js';
import { type Launcher, type LaunchSite } from './launcher.js';
import { identifyProcess, sendSignal, thisPlace, thisProcess } from './process-table.js';
import { StderrTail } from './stderr-tail.js';
import { type Upstream } from './upstream.js';
import { removeTree } from './workspace-removal.js';

/** How long each step of ending a CLI may take, before the next and harsher one. */
export interface Ladder {
  /** The CLI is asked to stop its turn, and then to leave. */
  interruptMs: number;
  /** Its process group has got SIGTERM; then comes SIGKILL. */
  termMs: number;
}

/** What SIGKILL takes, unless the kernel is held up. */
const DEATH_MS = 500;
/** What may pass from the exit of a CLI to the end of its sandbox, which is nicer than we are, on a busy machine. */
const SANDBOX_END_MS = 300;

export interface LaunchOptions {
  id: string;
  folders: LaunchFolders;
  ladder: Ladder;
  launcher: Launcher;
  upstream: Upstream;
  /** The models that it may ask; any unless told. */
  models?: readonly string[] | undefined;
  /** Whether it may ask the model; what it asks waits for the answer. */
  mayAsk: () => Promise<boolean>;
  onNotice: (notice: EngineNotice) => void;
}

/** One CLI with its folders and its way to the Messages API, from before it starts until nothing of it is left. */
export class Launch {
  private child: ChildProcess | null = null;
  private proxy: KeyProxy | null = null;
  private stderr: StderrTail | null = null;
  private hasExited = false;
  private isKilled = false;
  private readonly exit = deferred<undefined>();
  private readonly record: LaunchRecord;

  constructor(private readonly options: LaunchOptions) {
    this.record = { id: options.id, ...thisPlace(), owner: thisProcess(), cli: null };
    writeLaunchRecord(options.folders.root, this.record);
  }

  get id(): string {
    return this.options.id;
  }

  get pid(): number | null {
    return this.child?.pid ?? null;
  }

  /** Resolves when the CLI has exited or could not be started. */
  get exited(): Promise<undefined> {
    return this.exit.promise;
  }

  /** How often it has asked the Messages API. */
  get requestCount(): number {
    return this.proxy?.passedOn ?? 0;
  }

  /** How long the Messages API has asked this launch to wait, if it has. */
  get retryAfterMs(): number | null {
    return this.proxy?.retryAfterMs ?? null;
  }

  /** The tokens that the Messages API says it has used, by whatever asked for them in its place. */
  get usage(): Usage | null {
    return this.proxy?.usage ?? null;
  }

  /** Makes the place where the CLI is to stand. @param workspace its real path */
  async prepare(workspace: string): Promise<{ site: LaunchSite; token: string }> {
    const { folders, launcher, upstream, models, mayAsk } = this.options;
    const folder = launcher.usesSocket ? folders.root : null;
    const onForbidden = (reason: string) =>
      this.options.onNotice({ kind: 'request_forbidden', launchId: this.id, reason });
    this.proxy = await KeyProxy.open({ upstream, folder, models, mayAsk, onForbidden });
    const site = await launcher.prepare({ folders, workspace, proxy: this.proxy });
    return { site, token: this.proxy.token };
  }

  /** Starts the CLI at its place: the Agent SDK's `spawnClaudeCodeProcess`. */
  spawn(site: LaunchSite, options: SpawnOptions) {
    if (this.isKilled) throw new Error('The launch was killed before its CLI was started.');
    const child = site.spawn(options);
    this.child = child;
    this.stderr = new StderrTail(child.stderr, this.proxy?.token ?? '');
    child.once('exit', () => this.hasGone());
    child.once('error', (error) => {
      this.options.onNotice({ kind: 'launch_failed', launchId: this.id, reason: String(error) });
      if (child.pid === undefined) this.hasGone();
    });
    if (child.pid !== undefined) {
      this.record.cli = identifyProcess(child.pid);
      writeLaunchRecord(this.options.folders.root, this.record);
      this.options.onNotice({ kind: 'launched', launchId: this.id, pid: child.pid });
    }
    return child;
  }

  /** What there is to say about a CLI that ended on its own. */
  tellDeath(reason: string | null): void {
    const { exitCode = null, signalCode: signal = null } = this.child ?? {};
    const stderr = this.stderr?.read() ?? '';
    this.options.onNotice({ kind: 'cli_died', launchId: this.id, exitCode, signal, stderr, reason });
  }

  /**
   * Ends the CLI and whatever it started. Resolves when nothing is left, or when SIGKILL has not helped for a second.
   * @param interrupt the first, gentle step: asks the CLI to leave
   */
  async end(interrupt?: () => Promise<void>): Promise<void> {
    const { ladder, onNotice } = this.options;
    if (interrupt && !this.hasExited) {
      const leaving = interrupt().then(
        () => this.exited,
        () => undefined,
      );
      await within(ladder.interruptMs, Promise.race([leaving, this.exited]));
    }
    const { pid } = this;
    if (pid !== null && !this.hasExited && !this.wasKilled()) {
      sendSignal(-pid, 'SIGTERM');
      await within(ladder.termMs, this.exited);
    }
    const wasGone = this.hasExited;
    const { id, cli } = this.record;
    if (pid !== null && !wasGone) {
      this.kill();
      // To look at once for what is left would be to look through all processes in vain.
      await within(DEATH_MS, this.exited);
    }
    const remains = { id, groupId: pid, startTime: cli?.startTime };
    if (wasGone && (await endsByItself(remains, SANDBOX_END_MS))) return;
    const { killed, left } = await killRemains(remains);
    if (left.length > 0 || (wasGone && killed.length > 0)) {
      onNotice({ kind: 'remains_killed', launchId: this.id, killed, left });
    }
  }

  /** The harshest step at once, whatever `end` is at: it goes on with what is left. Nothing is started any more. */
  kill(): void {
    this.isKilled = true;
    if (this.pid !== null && !this.hasExited) sendSignal(-this.pid, 'SIGKILL');
  }

  /** Ends its token and deletes its folder. The workspace stays. */
  async remove(): Promise<void> {
    try {
      await this.proxy?.close();
      if (this.proxy)
        this.options.onNotice({ kind: 'launch_traffic', launchId: this.id, ...this.proxy.traffic });
      await removeTree(this.options.folders.root);
    } catch (error) {
      this.options.onNotice({ kind: 'cleanup_failed', launchId: this.id, reason: String(error) });
    }
  }

  /** A question of its own, for it may have come about while something was awaited. */
  private wasKilled(): boolean {
    return this.isKilled;
  }

  private hasGone(): void {
    this.hasExited = true;
    this.exit.resolve(undefined);
  }
}
