import { Redis } from 'ioredis';

const ANSWER_TIMEOUT_MS = 3_000;

export type RedisAnswer =
  | { kind: 'ready'; pid: number; configFile: string }
  /** Reading its data. */
  | { kind: 'busy' }
  | { kind: 'refused'; reason: string }
  | { kind: 'silent' };

export function redisUrl(server: { port: number; password: string }): string {
  return `redis://:${server.password}@127.0.0.1:${server.port}`;
}

/** What the server at this port says to our password. Never throws. */
export async function askRedis(server: { port: number; password: string }): Promise<RedisAnswer> {
  const client = new Redis({
    host: '127.0.0.1',
    port: server.port,
    password: server.password,
    lazyConnect: true,
    enableReadyCheck: false,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
    connectTimeout: ANSWER_TIMEOUT_MS,
    commandTimeout: ANSWER_TIMEOUT_MS,
  });
  // a refused password is told here alone; `connect()` says no more than that the connection is closed
  let told: Error | undefined;
  client.on('error', (error: Error) => (told = error));
  try {
    await client.connect();
    await client.ping();
    const info = await client.info('server');
    const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? '';
    return { kind: 'ready', pid: Number(field('process_id')), configFile: field('config_file') };
  } catch (error) {
    const { name, message } = told ?? (error as Error);
    if (message.startsWith('LOADING')) return { kind: 'busy' };
    return name === 'ReplyError' ? { kind: 'refused', reason: message } : { kind: 'silent' };
  } finally {
    // of a connection that has ended already, ioredis would wait for the end again
    if (client.status !== 'end') client.disconnect();
  }
}
