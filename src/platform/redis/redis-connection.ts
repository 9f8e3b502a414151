import { Redis, type RedisOptions } from 'ioredis';

/** A connection that reconnects by itself for as long as it takes, and whose failures end nothing but what waits for it. */
export class RedisConnection extends Redis {
  constructor(url: string, options: RedisOptions) {
    super(url, options);
    this.on('error', () => undefined); // health shows it; without a listener it would end the server
  }

  /** ioredis itself subscribes again after an outage, and does not listen: should that fail, it would end the server. */
  override sendCommand(...[command, stream]: Parameters<Redis['sendCommand']>): unknown {
    command.promise.catch(() => undefined);
    return super.sendCommand(command, stream);
  }
}
