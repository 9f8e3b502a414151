import { mkdtempSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Started, startProgram } from '../support/started.js';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.js';
import { removeLeft } from '../support/left-directory.js';

export type Role = 'api' | 'worker';
export type StoreName = 'postgres' | 'redis';

/** What a supervisor waits before it starts again what ended by itself: as it does while a store is away. */
const RESPAWN_MS = 300;
/** A shutdown may wait for the grace, then for answers under way, and for stores that are away. */
const STOP_PATIENCE_MS = 45_000;
const POLL_MS = 50;
const MOST_LINES = 15;
const MOST_CHARACTERS = 1000;

/** One life of a server. */
export interface Incarnation {
  pid: number;
  bornAt: number;
  isListening: boolean;
  endedAt: number | null;
  /** Null while it runs; `itself` if nobody told it to. */
  endedBy: 'SIGKILL' | 'SIGTERM' | 'itself' | null;
  lines: string[];
}

export interface SlotOptions {
  name: string;
  role: Role;
  environment: NodeJS.ProcessEnv;
  stores: Record<StoreName, string>;
  /** Told of what no server should do. */
  onProblem: (what: string) => void;
}

/** A place where a server runs, dies and is started again, behind proxies of its own: same port, same data directory. */
export class ServerSlot {
  readonly incarnations: Incarnation[] = [];
  private started: Started | null = null;
  private isWanted = true;
  private isFrozen = false;

  private constructor(
    private readonly options: SlotOptions,
    readonly dataDirectory: string,
    readonly port: number,
    readonly proxies: Record<StoreName, TcpProxy>,
  ) {}

  /** A slot, empty as yet. */
  static async open(options: SlotOptions): Promise<ServerSlot> {
    const [postgres, redis] = await Promise.all([
      startTcpProxy(options.stores.postgres),
      startTcpProxy(options.stores.redis),
    ]);
    const directory = mkdtempSync(join(tmpdir(), `chaos-${options.name}-`));
    return new ServerSlot(options, directory, await freePort(), { postgres, redis });
  }

  get name(): string {
    return this.options.name;
  }

  get role(): Role {
    return this.options.role;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The life that is being lived. */
  get current(): Incarnation | null {
    const last = this.incarnations.at(-1);
    return last?.endedAt === null ? last : null;
  }

  start(): void {
    this.isWanted = true;
    if (this.current) return;
    const started = startProgram(['--enable-source-maps', 'dist/src/main.js'], {
      ...this.options.environment,
      ROLE: this.role,
      PORT: String(this.port),
      DATA_DIR: this.dataDirectory,
      DATABASE_URL: this.proxies.postgres.url,
      REDIS_URL: this.proxies.redis.url,
    });
    const { pid, lines } = started;
    const life: Incarnation = {
      pid,
      bornAt: Date.now(),
      isListening: false,
      endedAt: null,
      endedBy: null,
      lines,
    };
    this.started = started;
    this.incarnations.push(life);
    started.line(/listens on/).then(
      () => (life.isListening = true),
      () => undefined,
    );
    void started.exited.then(({ code, signal }) =>
      this.hasEnded(life, signal ?? `exit code ${String(code)}`),
    );
  }

  /** kill -9. It stays away until `start()`. */
  async kill(): Promise<void> {
    await this.end('SIGKILL');
  }

  /** Asks it to stop, and waits until it has. */
  async terminate(): Promise<void> {
    const patience = new AbortController();
    const late = sleep(STOP_PATIENCE_MS, 'late', { signal: patience.signal }).catch(() => 'stopped');
    const ended = this.end('SIGTERM');
    if ((await Promise.race([ended, late])) === 'late') {
      this.options.onProblem(
        `${this.name} did not stop within ${STOP_PATIENCE_MS} ms of SIGTERM.\n${this.lastWords()}`,
      );
      this.started?.kill('SIGKILL');
      await ended;
    }
    patience.abort();
  }

  /** SIGSTOP: it stands still, and everybody else takes it for a slow one. */
  freeze(): void {
    this.isFrozen = true;
    this.started?.kill('SIGSTOP');
  }

  thaw(): void {
    if (!this.isFrozen) return;
    this.isFrozen = false;
    this.started?.kill('SIGCONT');
  }

  /** Resolves when it serves and calls itself ready. @throws Error after `patienceMs` */
  async untilReady(patienceMs: number): Promise<void> {
    const deadline = Date.now() + patienceMs;
    let last = 'it was not asked';
    while (Date.now() < deadline) {
      last = await fetch(`${this.url}/health/ready`, { signal: AbortSignal.timeout(2000) }).then(
        (response) => String(response.status),
        (error: unknown) => String(error),
      );
      if (last === '200') return;
      await sleep(POLL_MS);
    }
    throw new Error(`${this.name} was not ready within ${patienceMs} ms: ${last}.\n${this.lastWords(3)}`);
  }

  private lastWords(most = MOST_LINES): string {
    return wordsOf(this.incarnations.at(-1), most);
  }

  async close(): Promise<void> {
    await this.kill();
    await Promise.all([this.proxies.postgres.close(), this.proxies.redis.close()]);
    await removeLeft(this.dataDirectory);
  }

  private async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.isWanted = false;
    const { current, started } = this;
    if (!current || !started) return;
    current.endedBy = signal;
    started.kill(signal);
    this.thaw();
    await started.exited;
  }

  private hasEnded(life: Incarnation, how: string): void {
    life.endedAt = Date.now();
    life.endedBy ??= 'itself';
    if (life.endedBy !== 'itself') return;
    if (life.isListening)
      this.options.onProblem(`${this.name} (pid ${life.pid}) ended by itself: ${how}.\n${wordsOf(life)}`);
    if (this.isWanted) setTimeout(() => this.isWanted && this.start(), RESPAWN_MS);
  }
}

function wordsOf(life: Incarnation | undefined, most = MOST_LINES): string {
  return (life?.lines.slice(-most) ?? []).map((line) => line.slice(0, MOST_CHARACTERS)).join('\n');
}

/** One that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
