import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import fastify, { type FastifyInstance } from 'fastify';
import { sendEventStream } from './event-stream.js';

const PATIENCE_MS = 5_000;

describe('the events of a stream', () => {
  let server: FastifyInstance;
  let ended: Promise<string>;

  /** Serves an event at once, then as many as are taken, or none until the signal aborts. */
  async function serve({ giveWayMs, bytes }: { giveWayMs?: number; bytes: number | null }) {
    let end: (how: string) => void = () => undefined;
    ended = new Promise((resolve) => (end = resolve));
    async function* events(signal: AbortSignal) {
      try {
        yield { seq: 1, type: 'created' };
        if (bytes === null) await once(signal, 'abort');
        for (let seq = 2; bytes !== null; seq += 1)
          yield { seq, type: 'text', text: 'x'.repeat(await Promise.resolve(bytes)) };
      } finally {
        end('ended');
      }
    }
    server = fastify();
    server.get('/', async (request, reply) => {
      const gone = new AbortController();
      request.raw.socket.once('close', () => gone.abort());
      return sendEventStream(reply, {
        open: (signal) => Promise.resolve(events(signal)),
        clientGone: gone.signal,
        reset: new AbortController().signal,
        ...(giveWayMs === undefined ? {} : { giveWayMs }),
      });
    });
    await server.listen({ port: 0 });
    const socket = connect({ port: (server.server.address() as AddressInfo).port });
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    return socket;
  }
  afterEach(() => server.close());

  const howTheyEnd = () => Promise.race([ended, sleep(PATIENCE_MS, 'never', { ref: false })]);

  it('end with a client that goes before the first byte', async () => {
    const socket = await serve({ giveWayMs: 300, bytes: null });
    await sleep(100);
    socket.destroy();
    expect(await howTheyEnd()).toBe('ended');
  });

  it('end with a client that goes while it takes no more', async () => {
    const socket = await serve({ bytes: 64 * 1024 });
    await once(socket, 'readable');
    await sleep(300);
    socket.destroy();
    expect(await howTheyEnd()).toBe('ended');
  });

  it('end with a client that waits for the next', async () => {
    const socket = await serve({ bytes: null });
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString()).toMatch(/^HTTP\/1\.1 200 /);
    socket.destroy();
    expect(await howTheyEnd()).toBe('ended');
  });
});
