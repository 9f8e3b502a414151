import { randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { type FileHandle, open } from 'node:fs/promises';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { apiRequestHeaders, readApiRequest } from './api-request.js';
import { type Usage } from './engine-event.js';
import { rateLimitReset } from './rate-limit-reset.js';
import { type Upstream } from './upstream.js';
import { UsageMeter } from './usage-meter.js';

export interface KeyProxyOptions {
  upstream: Upstream;
  /** A folder to make the socket in; on a port of the loopback interface where there is none. */
  folder: string | null;
  /** The models that may be asked; any unless told. */
  models?: readonly string[] | undefined;
  /**
   * Whether the model may be asked: a CLI that nobody has asked anything must not ask either. Requests wait for the answer. It
   * may unless told.
   */
  mayAsk?: () => Promise<boolean>;
  /** Told, once, what the first request asked that was not passed on because of what it asked. */
  onForbidden?: (reason: string) => void;
}

/** What went through it. Bytes are those of bodies. */
export interface ApiTraffic {
  requests: number;
  /** Of these, how many were answered here, with a refusal. */
  refused: number;
  sentBytes: number;
  receivedBytes: number;
  /** From passing on each request to the first byte of its answer, the first hundred of them. */
  firstByteMs: number[];
}

export const SOCKET_NAME = 'messages.sock';

/** The Messages API as far as a CLI needs it. A key may open more than that. */
const ROUTES: ReadonlySet<string> = new Set([
  'HEAD /',
  'POST /v1/messages',
  'POST /v1/messages/count_tokens',
]);
/** Of an answer: they speak of one connection. */
const NOT_PASSED_ON: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'upgrade',
]);
const MAX_BODY_BYTES = 32 * 1024 * 1024;
/** Bodies are held whole until they are on their way. One launch's together may not be more than this. */
const MAX_HELD_BYTES = 2 * MAX_BODY_BYTES;
const MAX_TIMES = 100;
const KEEP_ALIVE_MS = 120_000;

/**
 * One launch's way to the Messages API: takes a token that is good for this launch alone, and puts the key in its place. So
 * neither the CLI nor what it starts ever holds the key.
 */
export class KeyProxy {
  readonly token = `launch-${randomBytes(24).toString('base64url')}`;
  readonly traffic: ApiTraffic = { requests: 0, refused: 0, sentBytes: 0, receivedBytes: 0, firstByteMs: [] };
  /** When the API will take requests again, by its last 429. In milliseconds since 1970. */
  private retryAt: number | null = null;
  private readonly meter = new UsageMeter();
  /** How many requests the API was sent. */
  passedOn = 0;
  private heldBytes = 0;
  private hasForbidden = false;
  private readonly server: http.Server;
  private folder: FileHandle | null = null;

  private constructor(private readonly options: KeyProxyOptions) {
    this.server = http.createServer(
      { keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: 0 },
      (request, response) => {
        void this.exchange(request, response);
      },
    );
  }

  static async open(options: KeyProxyOptions): Promise<KeyProxy> {
    const proxy = new KeyProxy(options);
    await proxy.listen();
    return proxy;
  }

  /** Where it listens, if on a port. */
  get url(): string {
    const address = this.server.address();
    return `http://127.0.0.1:${(address as AddressInfo).port}`;
  }

  /** How long the API has asked to be left alone, if it has. */
  get retryAfterMs(): number | null {
    return this.retryAt === null ? null : Math.max(0, this.retryAt - Date.now());
  }

  /** The tokens of all that went through it, whoever asked. */
  get usage(): Usage {
    return this.meter.total;
  }

  /** The end of its token. Breaks off what is on its way. */
  async close(): Promise<void> {
    if (!this.server.listening) return;
    const closed = once(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    await closed;
    await this.folder?.close();
  }

  private async listen(): Promise<void> {
    const { folder } = this.options;
    const listening = once(this.server, 'listening');
    if (folder === null) {
      this.server.listen(0, '127.0.0.1');
    } else {
      // The path of a socket may have 107 bytes, those of folders are longer. Open until the end, when it is unlinked.
      this.folder = await open(folder, 'r');
      const path = join(`/proc/self/fd/${this.folder.fd}`, SOCKET_NAME);
      // For whoever comes so far: its folder is ours alone, and its token is asked for.
      this.server.listen({ path, readableAll: true, writableAll: true });
    }
    await listening;
  }

  private async exchange(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.traffic.requests += 1;
    try {
      const refusal = this.refusalOf(request) ?? (await this.forward(request, response));
      if (refusal) this.refuse(response, refusal);
    } catch {
      // Whoever breaks off, the CLI or the API, is told by a connection that breaks off.
      response.destroy();
    }
  }

  private refusalOf(request: IncomingMessage): Refusal | null {
    if (!this.isOurs(tokenOf(request))) return [401, 'authentication_error', 'invalid x-api-key'];
    const route = `${request.method ?? ''} ${(request.url ?? '').split('?')[0] ?? ''}`;
    return ROUTES.has(route) ? null : [404, 'not_found_error', `Not offered here: ${route}`];
  }

  private isOurs(token: string): boolean {
    const [given, ours] = [Buffer.from(token), Buffer.from(this.token)];
    return given.length === ours.length && timingSafeEqual(given, ours);
  }

  private async forward(request: IncomingMessage, response: ServerResponse): Promise<Refusal | null> {
    const outgoing = await this.passOn(request, response);
    if (!(outgoing instanceof http.ClientRequest)) return outgoing;
    const began = performance.now();
    this.passedOn += 1;
    response.once('close', () => response.writableFinished || outgoing.destroy());
    const answer = await answerTo(outgoing);
    const { breaker } = this.options.upstream;
    const isAway = answer === null || (answer.statusCode ?? 0) >= 500;
    if (isAway && response.destroyed) breaker.abandon();
    else if (isAway) breaker.fail();
    else breaker.succeed();
    if (!answer) return [502, 'api_error', 'The Messages API cannot be reached.'];
    this.note(answer, performance.now() - began);
    response.writeHead(answer.statusCode ?? 502, passedOn(answer.headers));
    response.flushHeaders();
    await pipeline(this.counted(answer), response);
    return null;
  }

  /** Reads a request, and begins it anew with the key. */
  private async passOn(
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<http.ClientRequest | Refusal> {
    let held = 0;
    const letGo = () => {
      this.heldBytes -= held;
      held = 0;
    };
    const mayHold = (bytes: number) => {
      if (this.heldBytes + bytes > MAX_HELD_BYTES) return false;
      this.heldBytes += bytes;
      held += bytes;
      return true;
    };
    try {
      const bytes = await wholeBody(request, { mayHold, letGo });
      const body = Buffer.isBuffer(bytes) ? this.read(bytes) : bytes;
      if (body !== null && !Buffer.isBuffer(body)) {
        letGo();
        return body;
      }
      const { upstream, mayAsk } = this.options;
      // As late as can be: whoever was stopped while the request lay here may not be held any more.
      if (request.method !== 'HEAD' && mayAsk && (!(await mayAsk()) || response.destroyed)) {
        letGo();
        return [403, 'permission_error', 'Nobody has asked.'];
      }
      // Whoever only asks whether it is there is no probe: it would keep out who has something to say.
      const waitMs = request.method === 'HEAD' ? 0 : upstream.breaker.admit();
      if (waitMs > 0) {
        letGo();
        return [529, 'overloaded_error', 'The Messages API fails: not asked.', waitMs];
      }
      const outgoing = upstream.request(request.url ?? '/', {
        method: request.method ?? 'GET',
        headers: {
          ...apiRequestHeaders(request.headers),
          // Tokens are counted in passing.
          'accept-encoding': 'identity',
          ...(body === null ? {} : { 'content-length': body.length }),
        },
      });
      outgoing.once('finish', letGo).once('close', letGo);
      this.traffic.sentBytes += body?.length ?? 0;
      outgoing.end(body ?? undefined);
      return outgoing;
    } catch (error) {
      letGo();
      throw error;
    }
  }

  /** What may be passed on of a body; null for none. */
  private read(bytes: Buffer): Buffer | Refusal | null {
    if (bytes.length === 0) return null;
    const asked = readApiRequest(bytes);
    if (asked.kind === 'refused') {
      if (!this.hasForbidden) this.options.onForbidden?.(asked.reason);
      this.hasForbidden = true;
      return [400, 'invalid_request_error', asked.reason];
    }
    const { models } = this.options;
    return models && !asked.models.every((model) => models.includes(model))
      ? [404, 'not_found_error', 'This server does not offer the model.']
      : asked.body;
  }

  private note({ statusCode, headers }: IncomingMessage, elapsedMs: number): void {
    if (this.traffic.firstByteMs.length < MAX_TIMES) this.traffic.firstByteMs.push(Math.round(elapsedMs));
    if (statusCode === 429) this.retryAt = rateLimitReset(headers);
  }

  private async *counted(answer: IncomingMessage): AsyncGenerator<Buffer> {
    const meter = this.meter.begin(answer.headers);
    try {
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        this.traffic.receivedBytes += chunk.length;
        meter.see(chunk);
        yield chunk;
      }
    } finally {
      meter.end();
    }
  }

  private refuse(response: ServerResponse, [status, type, message, retryAfterMs]: Refusal): void {
    this.traffic.refused += 1;
    const retryAfter =
      retryAfterMs === undefined ? {} : { 'retry-after': String(Math.ceil(retryAfterMs / 1000)) };
    response.writeHead(status, { 'content-type': 'application/json', ...retryAfter });
    response.end(JSON.stringify({ type: 'error', error: { type, message } }));
  }
}

/** In the Messages API's own words. */
type Refusal = [status: number, type: string, message: string, retryAfterMs?: number];

function tokenOf({ headers }: IncomingMessage): string {
  const key = headers['x-api-key'];
  return typeof key === 'string' ? key : (/^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '');
}

function passedOn(headers: http.IncomingHttpHeaders): http.OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !NOT_PASSED_ON.has(name)));
}

/** Null if there is none. */
function answerTo(outgoing: http.ClientRequest): Promise<IncomingMessage | null> {
  return new Promise((resolve) => {
    outgoing.once('response', resolve);
    outgoing.on('error', () => resolve(null));
    outgoing.once('close', () => resolve(null));
  });
}

/** To its end, whatever is wrong with it: who is answered while sending may not read the answer. */
async function wholeBody(
  request: IncomingMessage,
  { mayHold, letGo }: { mayHold: (bytes: number) => boolean; letGo: () => void },
): Promise<Buffer | Refusal> {
  let chunks: Buffer[] = [];
  let length = 0;
  let refusal: Refusal | null = null;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) refusal ??= [413, 'request_too_large', 'The body exceeds 32 MB.'];
    else if (!refusal && !mayHold(chunk.length))
      refusal = [429, 'rate_limit_error', 'Too much is being sent at once.'];
    if (refusal) {
      chunks = [];
      letGo();
    } else {
      chunks.push(chunk);
    }
  }
  return refusal ?? Buffer.concat(chunks);
}
