import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { startTcpProxy, type TcpProxy } from './tcp-proxy.js';

/** A store that answers every request with `ok <request>`, and counts. */
describe('the TCP proxy', () => {
  let store: Server;
  let proxy: TcpProxy;
  let requests: string[];
  let clients: Socket[];
  let atStore: Set<Socket>;

  beforeEach(async () => {
    [requests, clients, atStore] = [[], [], new Set()];
    store = createServer((socket) => {
      atStore.add(socket);
      socket.on('error', () => undefined).once('close', () => atStore.delete(socket));
      socket.on('data', (data) => {
        requests.push(data.toString());
        socket.write(`ok ${data.toString()}`);
      });
    }).listen(0, '127.0.0.1');
    await once(store, 'listening');
    proxy = await startTcpProxy(`redis://:secret@127.0.0.1:${(store.address() as AddressInfo).port}/3`);
  });
  afterEach(async () => {
    for (const client of clients) client.destroy();
    await proxy.close();
    store.close();
    for (const socket of atStore) socket.destroy();
  });

  const dial = async () => {
    const { hostname, port } = new URL(proxy.url);
    const client = connect(Number(port), hostname);
    client.on('error', () => undefined);
    clients.push(client);
    await once(client, 'connect');
    return client;
  };
  const ask = async (client: Socket, request: string) => {
    const answered = once(client, 'data') as Promise<[Buffer]>;
    client.write(request);
    return (await answered)[0].toString();
  };
  const untilClosed = (client: Socket) => new Promise((resolve) => client.once('close', resolve));
  const untilAsked = async (request: string) => {
    while (!requests.includes(request)) await new Promise(setImmediate);
  };

  it('keeps everything of the URL but its host, and passes on what comes', async () => {
    expect(new URL(proxy.url)).toMatchObject({ protocol: 'redis:', password: 'secret', pathname: '/3' });
    expect(await ask(await dial(), 'hello')).toBe('ok hello');
  });

  it('cut: resets what stands and what comes, until it is restored', async () => {
    const standing = await dial();
    await ask(standing, 'hello');
    const broken = once(standing, 'error');
    proxy.cut();
    expect(await broken).toMatchObject([{ code: 'ECONNRESET' }]);
    await expect(dial().then((late) => ask(late, 'late'))).rejects.toMatchObject({ code: 'ECONNRESET' });
    proxy.restore();
    expect(await ask(await dial(), 'again')).toBe('ok again');
  });

  it('black hole: neither end hears of the other, and what it caught stays dead', async () => {
    const caught = await dial();
    await ask(caught, 'hello');
    proxy.blackHole();
    let heard = '';
    caught.on('data', (data) => (heard += data.toString()));
    caught.write('lost');
    const late = await dial();
    late.write('lost too');
    late.destroy();
    proxy.restore();
    caught.write('lost as well');
    expect(await ask(await dial(), 'again')).toBe('ok again');
    expect(requests).toEqual(['hello', 'again']);
    expect(heard).toBe('');
    expect(caught.destroyed).toBe(false);
  });

  it('black hole: the store keeps its end of a connection until it is over', async () => {
    const caught = await dial();
    await ask(caught, 'hello');
    proxy.blackHole();
    caught.destroy();
    await untilClosed(caught);
    await ask(await directly(), 'from beside');
    expect(atStore.size).toBe(2);
    proxy.restore();
    while (atStore.size > 1) await new Promise(setImmediate);
  });
  const directly = async () => {
    const client = connect((store.address() as AddressInfo).port, '127.0.0.1');
    client.on('error', () => undefined);
    clients.push(client);
    await once(client, 'connect');
    return client;
  };

  it('delay: holds back in both directions, and keeps the order when it ends', async () => {
    const client = await dial();
    proxy.delay(50);
    const began = performance.now();
    expect(await ask(client, 'slow')).toBe('ok slow');
    expect(performance.now() - began).toBeGreaterThan(90);
    const answers: string[] = [];
    client.on('data', (data) => answers.push(data.toString()));
    client.write('1');
    // A few turns of the event loop: the proxy has it by then.
    for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
    proxy.restore();
    client.write('2');
    while (answers.join('').length < 'ok 1ok 2'.length) await new Promise(setImmediate);
    expect(requests.join('')).toBe('slow12');
  });

  it('swallows the answer to what matches, after it was done, so many times', async () => {
    proxy.swallowAnswers({ to: /COMMIT/, times: 1 });
    const client = await dial();
    expect(await ask(client, 'BEGIN')).toBe('ok BEGIN');
    const broken = once(client, 'error');
    client.write('COMMIT');
    expect(await broken).toMatchObject([{ code: 'ECONNRESET' }]);
    await untilAsked('COMMIT');
    expect(proxy.swallowed).toBe(1);
    expect(await ask(await dial(), 'COMMIT')).toBe('ok COMMIT');
  });

  it('goes elsewhere with the next connection when the store is started elsewhere', async () => {
    const elsewhere = createServer((socket) => socket.on('error', () => undefined).end('elsewhere')).listen(
      0,
      '127.0.0.1',
    );
    await once(elsewhere, 'listening');
    proxy.retarget(`redis://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`);
    const [answer] = (await once(await dial(), 'data')) as [Buffer];
    expect(answer.toString()).toBe('elsewhere');
    elsewhere.close();
  });
});
