import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const DEFAULT_PORTS: Record<string, number> = { 'postgresql:': 5432, 'postgres:': 5432, 'redis:': 6379 };

/** What a proxy does with a connection. */
type Weather =
  | { kind: 'fair' }
  | { kind: 'cut' }
  | { kind: 'blackHole' }
  | { kind: 'delay'; ms: number }
  | { kind: 'swallow' | 'strand'; to: RegExp; left: number };

interface Swallowing {
  /** Only requests that match are hit: `/COMMIT/`, say. Any, unless told. */
  to?: RegExp;
  /** How many; no end unless told. */
  times?: number;
}

/** A TCP proxy before a store, which fails as networks do. One fault at a time; `restore()` ends it. */
export interface TcpProxy {
  /** The store's own URL, but by way of the proxy. */
  readonly url: string;
  /** Resets every connection, and each new one. */
  cut(): void;
  /**
   * Nothing gets through any more, and neither end hears of the other's end. The connections that are caught in it are
   * half-open for good: after `restore()` nothing comes of them either. New ones fare well then.
   */
  blackHole(): void;
  /** Holds every piece back for so long, in both directions. */
  delay(ms: number): void;
  /** Lets a request through, swallows its answer and resets the connection: the write succeeds, its caller hears nothing. */
  swallowAnswers(options?: Swallowing): void;
  /** Keeps a request on its way and resets the connection of its client; `restore()` brings it to the store, and its answer nowhere. */
  strandRequests(options?: Swallowing): void;
  /** How many answers have been swallowed. */
  readonly swallowed: number;
  /** Ends whatever goes wrong. */
  restore(): void;
  /** From the next connection on; the store has been started again elsewhere. */
  retarget(targetUrl: string): void;
  close(): Promise<void>;
}

/** Starts a proxy before the host and port of a URL. */
export async function startTcpProxy(targetUrl: string): Promise<TcpProxy> {
  const proxy = new Proxy(targetUrl);
  await proxy.listen();
  return proxy;
}

class Proxy implements TcpProxy {
  swallowed = 0;
  private target: URL;
  private weather: Weather = { kind: 'fair' };
  private readonly pipes = new Set<Pipe>();
  private readonly server = createServer({ allowHalfOpen: true, noDelay: true }, (client) =>
    this.accept(client),
  );

  constructor(targetUrl: string) {
    this.target = new URL(targetUrl);
  }

  get url(): string {
    const { port } = this.server.address() as AddressInfo;
    return Object.assign(new URL(this.target), { host: `127.0.0.1:${port}` }).toString();
  }

  async listen(): Promise<void> {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
  }

  cut(): void {
    this.weather = { kind: 'cut' };
    for (const pipe of [...this.pipes]) pipe.reset();
  }

  blackHole(): void {
    this.weather = { kind: 'blackHole' };
    for (const pipe of this.pipes) pipe.sink();
  }

  delay(ms: number): void {
    this.weather = { kind: 'delay', ms };
  }

  swallowAnswers({ to = /(?:)/, times = Infinity }: Swallowing = {}): void {
    this.weather = { kind: 'swallow', to, left: times };
  }

  strandRequests({ to = /(?:)/, times = Infinity }: Swallowing = {}): void {
    this.weather = { kind: 'strand', to, left: times };
  }

  restore(): void {
    this.weather = { kind: 'fair' };
    for (const pipe of [...this.pipes]) pipe.surface();
  }

  retarget(targetUrl: string): void {
    this.target = new URL(targetUrl);
  }

  async close(): Promise<void> {
    for (const pipe of [...this.pipes]) pipe.reset();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Whether this request is to be stranded, or its answer to be swallowed. */
  claim(kind: 'strand' | 'swallow', request: Buffer): boolean {
    const { weather } = this;
    if (weather.kind !== kind || weather.left <= 0) return false;
    if (!weather.to.test(request.toString('latin1'))) return false;
    weather.left -= 1;
    return true;
  }

  get isBlackHole(): boolean {
    return this.weather.kind === 'blackHole';
  }

  get delayMs(): number {
    return this.weather.kind === 'delay' ? this.weather.ms : 0;
  }

  private accept(client: Socket): void {
    if (this.weather.kind === 'cut') {
      client.on('error', () => undefined);
      client.resetAndDestroy();
      return;
    }
    const { hostname, port, protocol } = this.target;
    const storePort = Number(port || DEFAULT_PORTS[protocol]);
    const store = connect({ host: hostname, port: storePort, allowHalfOpen: true, noDelay: true });
    const pipe: Pipe = new Pipe(this, client, store, () => this.pipes.delete(pipe));
    this.pipes.add(pipe);
    if (this.weather.kind === 'blackHole') pipe.sink();
  }
}

/** One connection through the proxy. */
class Pipe {
  private isSunk = false;
  private isAnswerDoomed = false;
  private stranded: Buffer | null = null;
  private readonly requests = new Lane();
  private readonly answers = new Lane();

  constructor(
    private readonly proxy: Proxy,
    private readonly client: Socket,
    private readonly store: Socket,
    private readonly onGone: () => void,
  ) {
    client.on('data', (request: Buffer) => this.onRequest(request));
    client.on('end', () => this.onEnd(client));
    client.once('close', (hadError) => this.onClose(client, hadError));
    store.on('data', (answer: Buffer) => this.onAnswer(answer));
    store.on('end', () => this.onEnd(store));
    store.once('close', (hadError) => this.onClose(store, hadError));
    for (const socket of [client, store]) socket.on('error', () => undefined);
  }

  /** From now on whatever comes is dropped, and neither end hears of the other's. */
  sink(): void {
    this.isSunk = true;
  }

  /** All is well again: the store learns now that its client has left, or what that had asked of it. */
  surface(): void {
    if (this.isSunk && this.client.destroyed) this.reset();
    if (!this.stranded) return;
    this.isAnswerDoomed = true;
    this.store.write(this.stranded);
    this.stranded = null;
  }

  reset(): void {
    for (const socket of [this.client, this.store]) {
      if (socket.connecting) socket.destroy();
      else socket.resetAndDestroy();
    }
    this.onGone();
  }

  private onRequest(request: Buffer): void {
    if (this.isSunk) return;
    if (this.proxy.claim('strand', request)) {
      this.stranded = request;
      this.client.resetAndDestroy();
      return;
    }
    this.isAnswerDoomed ||= this.proxy.claim('swallow', request);
    this.requests.take(this.proxy.delayMs, () => pass(request, this.client, this.store));
  }

  private onAnswer(answer: Buffer): void {
    if (this.isSunk) return;
    if (this.isAnswerDoomed) {
      this.proxy.swallowed += 1;
      this.reset();
      return;
    }
    this.answers.take(this.proxy.delayMs, () => pass(answer, this.store, this.client));
  }

  private onEnd(from: Socket): void {
    if (this.isSunk) from.destroy();
    else this.laneFrom(from).take(this.proxy.delayMs, () => this.otherThan(from).end());
  }

  private onClose(from: Socket, hadError: boolean): void {
    if ((this.stranded || this.isAnswerDoomed) && from === this.client) return;
    if (this.isSunk) {
      if (from === this.client && !this.proxy.isBlackHole) this.reset();
      return;
    }
    this.laneFrom(from).take(this.proxy.delayMs, () => {
      if (hadError) this.reset();
      else this.otherThan(from).destroySoon();
      if (from === this.client) this.onGone();
    });
  }

  private otherThan(socket: Socket): Socket {
    return socket === this.client ? this.store : this.client;
  }

  private laneFrom(socket: Socket): Lane {
    return socket === this.client ? this.requests : this.answers;
  }
}

/** One direction of a connection: what is held back stays in order, also when the delay changes. */
class Lane {
  private held = 0;
  private last = Promise.resolve();

  take(delayMs: number, pass: () => void): void {
    if (delayMs === 0 && this.held === 0) {
      pass();
      return;
    }
    const due = performance.now() + delayMs;
    this.held += 1;
    this.last = this.last.then(async () => {
      await sleep(Math.max(0, due - performance.now()));
      this.held -= 1;
      pass();
    });
  }
}

function pass(piece: Buffer, from: Socket, to: Socket): void {
  if (to.destroyed || to.writableEnded || to.write(piece)) return;
  from.pause();
  to.once('drain', () => from.resume());
}
