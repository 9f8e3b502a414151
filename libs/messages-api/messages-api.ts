import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createDirectiveScript } from './directive-script.js';
import { exchange } from './exchange.js';
import { type ReceivedRequest, RequestLog } from './request-log.js';
import type { Script } from './script.js';

/** A scripted stand-in for Anthropic's Messages API, listening. */
export interface MessagesApi {
  /** For `ANTHROPIC_BASE_URL`: no slash at its end. */
  readonly url: string;
  readonly port: number;
  /** What was received, oldest first: the log itself, which grows. */
  readonly requests: readonly ReceivedRequest[];
  /**
   * Resolves with the oldest request that satisfies `match`, past or to come. Asked again when an outcome is known,
   * so that `outcome === 'client_gone'` can be waited for. Rejects after `timeoutMs` (a minute) and on `close()`.
   */
  waitForRequest(match: (request: ReceivedRequest) => boolean, timeoutMs?: number): Promise<ReceivedRequest>;
  /** Replaces the script, from the next request on. */
  script(script: Script): void;
  /** Back to the script it was started with; forgets the requests. Answers under way go on. */
  reset(): void;
  /** Breaks off all answers and stops listening. */
  close(): Promise<void>;
}

export interface MessagesApiOptions {
  /** 0, the default, takes a free one. */
  port?: number;
  /** 127.0.0.1 unless told. */
  host?: string;
  /** What to answer; `createDirectiveScript()` unless told. */
  script?: Script;
  /** The only key that is accepted; any other gets a 401. Without it any key will do, or none. */
  apiKey?: string;
  /** How many requests the log keeps; 10,000 unless told. */
  keepRequests?: number;
}

/** Starts a stand-in. Rejects if it cannot listen, say because the port is taken. */
export async function startMessagesApi(options: MessagesApiOptions = {}): Promise<MessagesApi> {
  const api = new ScriptedMessagesApi(options);
  await api.listen(options.port ?? 0);
  return api;
}

/** Longer than any client keeps a connection idle: none is closed under a request that is just being sent. */
const KEEP_ALIVE_MS = 120_000;
const WAIT_MS = 60_000;

/** Wildcards can be listened on but not connected to. */
const REACHABLE: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };

class ScriptedMessagesApi implements MessagesApi {
  readonly #options: MessagesApiOptions;
  readonly #host: string;
  readonly #server: Server;
  readonly #log: RequestLog;
  #script: Script;
  #isClosing = false;
  #port = 0;

  constructor(options: MessagesApiOptions) {
    this.#options = options;
    this.#host = options.host ?? '127.0.0.1';
    this.#log = new RequestLog(options.keepRequests ?? 10_000);
    this.#script = options.script ?? createDirectiveScript();
    this.#server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
      const { apiKey } = options;
      const isClosing = () => this.#isClosing;
      void exchange(request, response, { log: this.#log, script: this.#script, apiKey, isClosing });
    });
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, this.#host, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    const host = REACHABLE[this.#host] ?? this.#host;
    return `http://${host.includes(':') ? `[${host}]` : host}:${this.#port}`;
  }

  get port(): number {
    return this.#port;
  }

  get requests(): readonly ReceivedRequest[] {
    return this.#log.requests;
  }

  waitForRequest(
    match: (request: ReceivedRequest) => boolean,
    timeoutMs = WAIT_MS,
  ): Promise<ReceivedRequest> {
    return this.#log.waitFor(match, timeoutMs);
  }

  script(script: Script): void {
    this.#script = script;
  }

  reset(): void {
    this.#script = this.#options.script ?? createDirectiveScript();
    this.#log.clear();
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#log.close();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }
}
