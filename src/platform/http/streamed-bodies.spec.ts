import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { text } from 'node:stream/consumers';
import fastify from 'fastify';
import { readStreamedBodies } from './streamed-bodies.js';

describe('a body that takes too long', () => {
  const server = fastify();
  beforeAll(async () => {
    readStreamedBodies(server, 100);
    server.post('/', () => 'read');
    server.put('/', { config: { takesStreamedBody: true } }, async ({ body }) =>
      text(body as NodeJS.ReadableStream),
    );
    await server.listen({ port: 0 });
  });
  afterAll(() => server.close());

  const send = async (method: string) => {
    const socket = connect({ port: (server.server.address() as AddressInfo).port }).setEncoding('utf8');
    await once(socket, 'connect');
    socket.write(
      `${method} / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n1`,
    );
    return socket;
  };

  it('ends with its connection', async () => {
    expect(await text(await send('POST'))).toMatch(/^HTTP\/1\.1 408 /);
  });

  it('is waited for where it is streamed', async () => {
    // Both began at once: by then the time of the first is over, and would be of the second.
    const [streamed, other] = [await send('PUT'), await send('POST')];
    await text(other);
    streamed.write('2');
    const [answer] = (await once(streamed, 'data')) as [string];
    expect(answer).toMatch(/^HTTP\/1\.1 200 [\s\S]*12$/);
    streamed.destroy();
  });
});
