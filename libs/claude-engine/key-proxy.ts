import { randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { type FileHandle, open } from 'node:fs/promises';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type Upstream } from './upstream.js';

export interface KeyProxyOptions {
  upstream: Upstream;
  /** A folder to make the socket in; on a port of the loopback interface where there is none. */
  folder: string | null;
  /** The models that may be asked; any unless told. */
  models?: readonly string[] | undefined;
}

/** What went through it. Bytes are those of bodies. */
export interface ApiTraffic {
  requests: number;
  /** Of these, how many were answered here, with a refusal. */
  refused: number;
  sentBytes: number;
  receivedBytes: number;
  /** From each request to the first byte of its answer, the first hundred of them. */
  firstByteMs: number[];
}

export const SOCKET_NAME = 'messages.sock';

/** The Messages API as far as a CLI needs it. A key may open more than that. */
const ROUTES: ReadonlySet<string> = new Set([
  'HEAD /',
  'POST /v1/messages',
  'POST /v1/messages/count_tokens',
]);
/** They speak of one connection, or are ours to say. */
const NOT_PASSED_ON: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'upgrade',
  'authorization',
  'x-api-key',
  'host',
]);
const MAX_BODY_BYTES = 32 * 1024 * 1024;
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
  private isOpen = true;
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

  /** Whether the model may be asked: a CLI that nobody has asked anything must not ask either. What is on its way goes on. */
  setOpen(isOpen: boolean): void {
    this.isOpen = isOpen;
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
    if (!ROUTES.has(route)) return [404, 'not_found_error', `Not offered here: ${route}`];
    return this.isOpen || request.method === 'HEAD' ? null : [403, 'permission_error', 'Nobody has asked.'];
  }

  private isOurs(token: string): boolean {
    const [given, ours] = [Buffer.from(token), Buffer.from(this.token)];
    return given.length === ours.length && timingSafeEqual(given, ours);
  }

  private async forward(request: IncomingMessage, response: ServerResponse): Promise<Refusal | null> {
    const began = performance.now();
    const body = this.options.models ? await wholeBody(request) : request;
    if (body === null) return [413, 'request_too_large', 'The body exceeds 32 MB.'];
    if (Buffer.isBuffer(body) && !this.mayAsk(body))
      return [404, 'not_found_error', 'This server does not offer the model.'];
    const outgoing = this.options.upstream.request(request.url ?? '/', {
      method: request.method ?? 'GET',
      headers: passedOn(request.headers),
    });
    response.once('close', () => response.writableFinished || outgoing.destroy());
    // An API that has answered may take no more of the request; one that cannot be reached, nothing of it.
    if (Buffer.isBuffer(body)) outgoing.end(this.count(body, 'sentBytes'));
    else void pipeline(this.counted(body, 'sentBytes'), outgoing).catch(() => undefined);
    const answer = await answerTo(outgoing);
    if (!answer) return [502, 'api_error', 'The Messages API cannot be reached.'];
    this.note(answer, performance.now() - began);
    response.writeHead(answer.statusCode ?? 502, passedOn(answer.headers));
    response.flushHeaders();
    await pipeline(this.counted(answer, 'receivedBytes'), response);
    return null;
  }

  private mayAsk(body: Buffer): boolean {
    if (body.length === 0) return true;
    return this.options.models?.includes(modelIn(body)) ?? true;
  }

  private note({ statusCode, headers }: IncomingMessage, elapsedMs: number): void {
    if (this.traffic.firstByteMs.length < MAX_TIMES) this.traffic.firstByteMs.push(Math.round(elapsedMs));
    if (statusCode === 429) this.retryAt = readRetryAfter(headers['retry-after']);
  }

  private async *counted(
    source: IncomingMessage,
    into: 'sentBytes' | 'receivedBytes',
  ): AsyncGenerator<Buffer> {
    for await (const chunk of source as AsyncIterable<Buffer>) yield this.count(chunk, into);
  }

  private count(chunk: Buffer, into: 'sentBytes' | 'receivedBytes'): Buffer {
    this.traffic[into] += chunk.length;
    return chunk;
  }

  private refuse(response: ServerResponse, [status, type, message]: Refusal): void {
    this.traffic.refused += 1;
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ type: 'error', error: { type, message } }));
  }
}

/** In the Messages API's own words. */
type Refusal = [status: number, type: string, message: string];

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

/** Null if it is larger than the API takes. */
async function wholeBody(request: IncomingMessage): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  return length <= MAX_BODY_BYTES ? Buffer.concat(chunks) : null;
}

function modelIn(body: Buffer): string {
  try {
    const { model } = Object(JSON.parse(body.toString())) as { model?: unknown };
    return typeof model === 'string' ? model : '';
  } catch {
    return '';
  }
}

/** Seconds, or a date: RFC 9110, 10.2.3. */
function readRetryAfter(value: string | undefined): number | null {
  if (value === undefined) return null;
  const at = /^\d+$/.test(value) ? Date.now() + Number(value) * 1000 : Date.parse(value);
  return Number.isNaN(at) ? null : at;
}
