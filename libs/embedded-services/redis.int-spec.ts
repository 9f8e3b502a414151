import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Redis } from 'ioredis';
import { type EmbeddedService } from './embedded-service.js';
import { identify } from './os-process.js';
import { type EmbeddedRedisOptions, startEmbeddedRedis } from './redis.js';

jest.setTimeout(180_000);

/** Fetched once for all runs, where no Redis is installed. */
const cacheDirectory = resolve('.cache/distribution');

async function command(url: string, ...words: [string, ...string[]]): Promise<unknown> {
  const client = new Redis(url, { lazyConnect: true, retryStrategy: () => null, enableReadyCheck: false });
  let refusal: Error | undefined;
  client.on('error', (error: Error) => (refusal = error));
  try {
    await client.connect();
    return await client.call(...words);
  } catch (error) {
    throw refusal ?? error;
  } finally {
    if (client.status !== 'end') client.disconnect();
  }
}

describe('the embedded Redis', () => {
  const started = new Set<EmbeddedService>();
  let directory: string;
  let progress: string[];

  const start = async (options: Partial<EmbeddedRedisOptions> = {}) => {
    const onProgress = (line: string) => progress.push(line);
    const service = await startEmbeddedRedis({
      directory,
      durable: false,
      cacheDirectory,
      onProgress,
      ...options,
    });
    started.add(service);
    return service;
  };

  beforeEach(async () => {
    progress = [];
    directory = await mkdtemp(join(tmpdir(), 'embedded "redis" '));
  });

  afterEach(async () => {
    for (const service of started) await service.stop();
    started.clear();
    await rm(directory, { recursive: true, force: true });
  });

  it('answers PING at its URL and never throws a key away', async () => {
    const service = await start();

    expect(await command(service.url, 'PING')).toBe('PONG');
    expect(await command(service.url, 'CONFIG', 'GET', 'maxmemory-policy')).toContain('noeviction');
    expect(service.adopted).toBe(false);
    expect(progress.at(-1)).toBe(`Redis on 127.0.0.1:${service.port}`);
  });

  it('refuses a wrong password and no password, and listens on loopback only', async () => {
    const { url } = await start();
    const wrong = new URL(url);
    wrong.password = 'guessed';

    await expect(command(wrong.href, 'PING')).rejects.toThrow('WRONGPASS');
    wrong.password = '';
    await expect(command(wrong.href, 'PING')).rejects.toThrow('NOAUTH');
    expect(await command(url, 'CONFIG', 'GET', 'bind')).toEqual(['bind', '127.0.0.1']);
  });

  it('keeps its password from other users', async () => {
    const { url } = await start();

    for (const name of ['redis.conf', 'instance.json', 'redis.log'])
      expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
    expect(await readFile(join(directory, 'redis.conf'), 'utf8')).toContain(new URL(url).password);
  });

  it('keeps its data over stop and start when durable', async () => {
    const first = await start({ durable: true });
    await command(first.url, 'SET', 'kept', 'yes');
    await first.stop();
    const second = await start({ durable: true });

    expect(await command(second.url, 'GET', 'kept')).toBe('yes');
    expect(await command(second.url, 'CONFIG', 'GET', 'appendfsync')).toContain('everysec');
  });

  it('starts again after it was killed -9', async () => {
    const first = await start({ durable: true });
    process.kill(first.pid, 'SIGKILL');
    const second = await start({ durable: true });

    expect(second.adopted).toBe(false);
    expect(await command(second.url, 'PING')).toBe('PONG');
  });

  it('leaves no process when stopped, however often', async () => {
    const service = await start();
    await Promise.all([service.stop(), service.stop()]);
    await service.stop();

    expect(await identify(service.pid)).toBeUndefined();
    expect(existsSync(join(directory, 'instance.json'))).toBe(false);
  });

  it('takes over a server that is running already', async () => {
    const first = await start();
    const second = await start();

    expect(second).toMatchObject({ adopted: true, pid: first.pid, url: first.url });
    expect(progress.at(-1)).toBe(`Redis on 127.0.0.1:${first.port} (was already running)`);
    await second.stop();
    expect(await identify(first.pid)).toBeUndefined();
  });

  it('restarts a running server that is not as durable as asked for', async () => {
    const first = await start({ durable: false });
    const second = await start({ durable: true });

    expect(second.adopted).toBe(false);
    expect(await identify(first.pid)).toBeUndefined();
  });

  it('is one server when two starts come at once', async () => {
    const services = await Promise.all([start(), start()]);

    expect(new Set(services.map(({ pid }) => pid)).size).toBe(1);
    expect(services.filter(({ adopted }) => adopted)).toHaveLength(1);
  });

  it('leaves a program alone that has the pid of its lost server now', async () => {
    const first = await start();
    const state = await readFile(join(directory, 'instance.json'), 'utf8');
    await first.stop();
    await writeFile(join(directory, 'instance.json'), state);
    await writeFile(join(directory, 'redis.pid'), String(process.pid));
    const second = await start();

    expect(second.adopted).toBe(false);
    expect(await command(second.url, 'PING')).toBe('PONG');
  });

  it('ends a running server that does not take the password we know', async () => {
    const first = await start();
    await command(first.url, 'CONFIG', 'SET', 'requirepass', 'changed by hand');
    const second = await start();

    expect(await identify(first.pid)).toBeUndefined();
    expect(await command(second.url, 'PING')).toBe('PONG');
  });

  it('leaves no process when the server cannot start', async () => {
    await writeFile(join(directory, 'appendonlydir'), 'in the way');

    await expect(start({ durable: true })).rejects.toThrow(/Redis did not start .*See .*redis\.log/s);
    const pid = Number(await readFile(join(directory, 'redis.pid'), 'utf8'));
    expect(await identify(pid)).toBeUndefined();
    expect(existsSync(join(directory, 'instance.json'))).toBe(false);
  });

  it('starts nothing when the start is given up', async () => {
    const signal = AbortSignal.abort(new Error('changed my mind'));

    await expect(start({ signal })).rejects.toThrow('changed my mind');
    expect(existsSync(join(directory, 'redis.conf'))).toBe(false);
  });
});
