import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { type Duplex } from 'node:stream';
import tls from 'node:tls';
import { type BreakerOptions, CircuitBreaker } from './circuit-breaker.js';
import { type AnthropicAccess, type NetworkAccess } from './cli-environment.js';

const ANTHROPIC = 'https://api.anthropic.com';
/** Shorter than servers usually keep an idle connection: none is closed under a request that is just being sent. */
const IDLE_MS = 30_000;
const TUNNEL_TIMEOUT_MS = 20_000;

/** The Messages API: where requests go, with the key, by the way that the network leaves open. */
export class Upstream {
  readonly breaker: CircuitBreaker;
  private readonly base: URL;
  private readonly apiKey: string;
  private readonly agent: http.Agent;

  /** @throws Error if the file with further certificate authorities cannot be read */
  constructor({
    anthropic,
    network = {},
    breaker = {},
  }: {
    anthropic: AnthropicAccess;
    network?: NetworkAccess | undefined;
    breaker?: BreakerOptions | undefined;
  }) {
    this.breaker = new CircuitBreaker(breaker);
    this.base = new URL(anthropic.baseUrl ?? ANTHROPIC);
    this.apiKey = anthropic.apiKey;
    this.agent = agentFor(this.base, network);
  }

  /** Begins a request. @param path as the CLI asked for it, query included */
  request(path: string, options: { method: string; headers: http.OutgoingHttpHeaders }): http.ClientRequest {
    const { protocol, hostname, port, host, pathname } = this.base;
    const send = protocol === 'https:' ? https.request : http.request;
    return send({
      agent: this.agent,
      hostname: hostname.replace(/^\[|\]$/g, ''),
      port,
      method: options.method,
      path: pathname.replace(/\/$/, '') + path,
      headers: { ...options.headers, host, 'x-api-key': this.apiKey },
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

function agentFor(base: URL, { httpsProxy, noProxy = '', extraCaCerts }: NetworkAccess): http.Agent {
  const options = { keepAlive: true, timeout: IDLE_MS };
  if (base.protocol === 'http:') return new http.Agent(options);
  const ca =
    extraCaCerts === undefined ? undefined : [...tls.rootCertificates, readFileSync(extraCaCerts, 'utf8')];
  if (httpsProxy === undefined || isExempt(base, noProxy)) return new https.Agent({ ...options, ca });
  return new TunnelAgent({ ...options, ca }, new URL(httpsProxy));
}

/** Whether NO_PROXY speaks of this host: by its name, by a domain that it is in, with or without a port, or by `*`. */
function isExempt({ hostname, port }: URL, noProxy: string): boolean {
  const entries = noProxy.split(',').map((entry) =>
    entry
      .trim()
      .toLowerCase()
      .replace(/^\*?\./, ''),
  );
  return entries.some((entry) => {
    const [, name = entry, itsPort] = /^(.*?)(?::(\d+))?$/.exec(entry) ?? [];
    if (name === '' || (itsPort !== undefined && itsPort !== (port || '443'))) return false;
    return name === '*' || hostname === name || hostname.endsWith(`.${name}`);
  });
}

/** Reaches its host through an HTTP proxy's CONNECT. */
class TunnelAgent extends https.Agent {
  constructor(
    options: https.AgentOptions,
    private readonly proxy: URL,
  ) {
    super(options);
  }

  override createConnection(
    options: https.RequestOptions & tls.ConnectionOptions,
    callback: (error: Error | null, stream: Duplex) => void,
  ): null {
    const target = `${options.host ?? ''}:${options.port ?? 443}`;
    const { protocol, hostname, port, username, password } = this.proxy;
    const credentials = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`);
    const authorization = { 'proxy-authorization': `Basic ${credentials.toString('base64')}` };
    const connect = (protocol === 'https:' ? https.request : http.request)({
      hostname,
      port,
      method: 'CONNECT',
      path: target,
      headers: { host: target, ...(username === '' ? {} : authorization) },
      timeout: TUNNEL_TIMEOUT_MS,
      agent: false,
    });
    // A failed connection comes without a stream, whatever the types of Node say.
    const fail = (error: Error) => callback(error, undefined as unknown as Duplex);
    connect.once('error', fail);
    connect.once('timeout', () => connect.destroy(new Error('The proxy does not answer.')));
    connect.once('connect', ({ statusCode }, socket) => {
      if (statusCode === 200) {
        socket.setTimeout(0);
        callback(
          null,
          tls.connect({ ...options, socket, servername: options.servername ?? options.host ?? '' }),
        );
        return;
      }
      socket.destroy();
      fail(new Error(`The proxy refuses the way to ${target}: ${statusCode ?? 'no status'}.`));
    });
    connect.end();
    return null;
  }
}
