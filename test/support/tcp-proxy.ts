import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** What stands between a server and one of its stores, and goes wrong on demand. */
export interface TcpProxy {
  /** The target's URL, by way of the proxy. */
  url: string;
  /** The store is gone: every connection is reset, new ones are refused. */
  cut: () => Promise<void>;
  /** The store has fallen silent: connections stand, also new ones, and nothing gets through either way. */
  blackHole: () => void;
  /** Each piece takes so much longer, either way. */
  delay: (ms: number) => void;
  /** All is well again. What the black hole held arrives. */
  restore: () => Promise<void>;
  close: () => Promise<void>;
}

const HOST = '127.0.0.1';
const DEFAULT_PORTS: Record<string, number> = { 'postgresql:': 5432, 'postgres:': 5432, 'redis:': 6379 };

/** A proxy for one store, by its URL: `postgresql://…`, `redis://…`. */
export async function startTcpProxy(targetUrl: string): Promise<TcpProxy> {
  const target = new URL(targetUrl);
  const targetPort = target.port === '' ? DEFAULT_PORTS[target.protocol] : Number(target.port);
  const line = new Line();
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket)).on('error', () => undefined);
  };
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const upstream = connect({ host: target.hostname, port: targetPort ?? 0, allowHalfOpen: true });
    upstream.setNoDelay();
    keep(client);
    keep(upstream);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const)
      pipeline(from, (pieces) => line.carry(pieces as AsyncIterable<Buffer>), to).catch(() => undefined);
  });
  const listen = async (port: number) => {
    server.listen(port, HOST);
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  const cut = async () => {
    const closed = server.listening ? once(server, 'close') : undefined;
    server.close();
    for (const socket of sockets) socket.resetAndDestroy();
    await closed;
  };
  const port = await listen(0);
  return {
    url: Object.assign(new URL(targetUrl), { hostname: HOST, port: String(port) }).href,
    cut,
    blackHole: () => line.block(),
    delay: (ms) => line.slow(ms),
    restore: async () => {
      line.clear();
      if (!server.listening) await listen(port);
    },
    close: async () => {
      line.clear();
      await cut();
    },
  };
}

/** How pieces travel at the moment. */
class Line {
  private delayMs = 0;
  private blocked: { until: Promise<void>; end: () => void } | null = null;

  async *carry(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
    for await (const piece of pieces) {
      if (this.delayMs > 0) await sleep(this.delayMs);
      await this.blocked?.until;
      yield piece;
    }
    await this.blocked?.until; // the end of a connection does not get through either
  }

  slow(ms: number): void {
    this.delayMs = ms;
  }

  block(): void {
    let end: () => void = () => undefined;
    this.blocked ??= { until: new Promise((resolve) => (end = resolve)), end: () => end() };
  }

  clear(): void {
    this.delayMs = 0;
    this.blocked?.end();
    this.blocked = null;
  }
}
