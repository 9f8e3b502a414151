import { io, type Socket } from 'socket.io-client';
import type { AccessToken } from '../../src/auth/auth.schemas.js';
import type { Problem } from '../../src/platform/errors/errors.schemas.js';
import type { ProcessEvent, ProcessEventPage } from '../../src/processes/process-events.schemas.js';
import type { Process } from '../../src/processes/processes.schemas.js';
import { readEventStream } from './event-stream-reader.js';

export interface Answer<Body> {
  status: number;
  headers: Headers;
  body: Body;
}

type ExecuteBody = Record<string, unknown>;

/** A user of the service: REST by fetch, sockets by socket.io-client. */
export class ApiClient {
  constructor(
    readonly url: string,
    readonly token: string | null,
  ) {}

  static async login(url: string, email: string, password: string): Promise<ApiClient> {
    const { body } = await new ApiClient(url, null).request<AccessToken>('POST', '/api/v1/auth/login', {
      email,
      password,
    });
    return new ApiClient(url, body.accessToken);
  }

  async request<Body = Problem>(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer<Body>> {
    const response = await this.fetch(path, {
      method,
      headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      body: (text === '' ? null : JSON.parse(text)) as Body,
    };
  }

  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const authorization: Record<string, string> =
      this.token === null ? {} : { Authorization: `Bearer ${this.token}` };
    return fetch(this.url + path, {
      ...init,
      headers: { ...authorization, ...(init.headers as Record<string, string>) },
    });
  }

  execute(body: ExecuteBody, headers?: Record<string, string>): Promise<Answer<Process>> {
    return this.request<Process>('POST', '/api/v1/claude/execute', body, headers);
  }

  async submit(body: ExecuteBody): Promise<Process> {
    return (await this.request<Process>('POST', '/api/v1/claude/execute/async', body)).body;
  }

  async find(id: string, headers?: Record<string, string>): Promise<Process> {
    return (await this.request<Process>('GET', `/api/v1/claude/processes/${id}`, undefined, headers)).body;
  }

  /** Asks again until the process has ended. */
  async untilEnded(id: string): Promise<Process> {
    for (;;) {
      const path = `/api/v1/claude/processes/${id}`;
      const { status, body } = await this.request<Process>('GET', path, undefined, { Prefer: 'wait=30' });
      // What was asked while the database was away may still be refused when it is back.
      const isUnanswered = status === 503 || body.status === 'pending' || body.status === 'running';
      if (!isUnanswered) return body;
    }
  }

  cancel(id: string): Promise<Answer<Process>> {
    return this.request<Process>('DELETE', `/api/v1/claude/processes/${id}`);
  }

  async events(id: string, query = ''): Promise<ProcessEventPage> {
    return (await this.request<ProcessEventPage>('GET', `/api/v1/claude/processes/${id}/events${query}`))
      .body;
  }

  /** The server-sent events of a process, to its end or until the loop is left. */
  async *stream(
    id: string,
    after = 0,
    headers: Record<string, string> = {},
  ): AsyncGenerator<ProcessEvent, void> {
    const controller = new AbortController();
    const path = `/api/v1/claude/processes/${id}/events/stream?after=${after}`;
    const response = await this.fetch(path, { headers, signal: controller.signal });
    try {
      for await (const { data } of readEventStream(response)) yield JSON.parse(data) as ProcessEvent;
    } finally {
      controller.abort();
    }
  }

  /** Resolves with the first event that satisfies it. */
  async waitForEvent(id: string, matches: (event: ProcessEvent) => boolean): Promise<ProcessEvent> {
    for await (const event of this.stream(id)) if (matches(event)) return event;
    throw new Error(`The log of ${id} ended without such an event.`);
  }

  /** Not connected yet: add listeners, then `connect()`. */
  socket(): Socket {
    return io(this.url, {
      auth: { token: this.token },
      autoConnect: false,
      transports: ['websocket'],
      forceNew: true,
    });
  }
}
