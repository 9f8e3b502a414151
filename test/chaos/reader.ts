import { setTimeout as sleep } from 'node:timers/promises';
import {
  isTerminal,
  type ProcessEvent,
  type ProcessEventPage,
} from '../../src/processes/process-events.schemas.js';
import { isEnded } from '../../src/processes/processes.schemas.js';
import { readEventStream } from '../support/event-stream-reader.js';
import type { ApiClient } from '../support/api-client.js';
import type { Callers } from './callers.js';
import type { Ledger, Transcript } from './ledger.js';
import { socketEvents } from './socket-events.js';
import type { Reading } from './work-schedule.js';

const AGAIN_MS = 150;
const PAGE_LIMIT = 7;

interface ReaderOptions {
  callers: Callers;
  ledger: Ledger;
  /** Aborts when there is no more use in reading on. */
  giveUp: AbortSignal;
}

/** Why a connection was left or lost; the log goes on elsewhere. `ended`: the server said that this was all. */
type Parting = 'hop' | 'lost' | 'ended';

/** Reads one log to its terminal event, over as many connections, at as many servers, as it takes. */
export class Reader {
  private readonly transcript: Transcript;
  private readonly hops: number[];

  constructor(
    private readonly options: ReaderOptions,
    processId: string,
    private readonly reading: Reading,
  ) {
    this.transcript = {
      processId,
      reading,
      events: [],
      connections: 0,
      at: '-',
      isOver: false,
      problems: [],
    };
    this.hops = [...reading.hops];
    options.ledger.transcripts.push(this.transcript);
  }

  async read(): Promise<void> {
    const { giveUp, callers } = this.options;
    const { transcript } = this;
    while (!transcript.isOver && !giveUp.aborted) {
      const { client, name } = callers.at(transcript.connections);
      transcript.connections += 1;
      transcript.at = name;
      const parting = await this.readAt(client).catch(() => 'lost' as const);
      if (parting === 'ended')
        this.problem(`${name} ended the log after ${this.lastSeq}, without a terminal event`);
      if (parting !== 'hop') await sleep(AGAIN_MS, undefined, { signal: giveUp }).catch(() => undefined);
    }
  }

  private async readAt(client: ApiClient): Promise<Parting> {
    const leaving = new AbortController();
    const leave = () => leaving.abort();
    this.options.giveUp.addEventListener('abort', leave, { once: true });
    try {
      return await this.take(this.connect(client, leaving.signal));
    } finally {
      this.options.giveUp.removeEventListener('abort', leave);
      leaving.abort();
    }
  }

  private async take(events: AsyncIterable<ProcessEvent>): Promise<Parting> {
    let left = this.hops.shift() ?? Infinity;
    for await (const event of events) {
      this.note(event);
      if (this.transcript.isOver) return 'hop';
      if ((left -= 1) <= 0) return 'hop';
      if (this.reading.paceMs > 0) await sleep(this.reading.paceMs);
    }
    return this.options.giveUp.aborted ? 'lost' : 'ended';
  }

  private connect(client: ApiClient, signal: AbortSignal): AsyncIterable<ProcessEvent> {
    const { processId } = this.transcript;
    switch (this.reading.transport) {
      case 'sse-last-event-id':
        return this.serverSentEvents(client, { 'Last-Event-ID': String(this.lastSeq) }, '', signal);
      case 'sse-after':
        return this.serverSentEvents(client, {}, `?after=${this.lastSeq}`, signal);
      case 'socket':
        return socketEvents(client, { processId, after: this.lastSeq, saw: this.saw }, signal);
      case 'pages':
        return this.pages(client, signal);
    }
  }

  private async *serverSentEvents(
    client: ApiClient,
    headers: Record<string, string>,
    query: string,
    signal: AbortSignal,
  ): AsyncGenerator<ProcessEvent, void> {
    const path = `/api/v1/claude/processes/${this.transcript.processId}/events/stream${query}`;
    const response = await client.fetch(path, { headers, signal });
    if (response.status !== 200) return this.refused(response.status, await response.text());
    for await (const { id, event: type, data } of readEventStream(response)) {
      const event = JSON.parse(data) as ProcessEvent;
      if (id !== String(event.seq) || type !== event.type)
        this.problem(`the frame id ${id}, event ${type} held the event ${event.seq}, ${event.type}`);
      yield event;
    }
  }

  private async *pages(client: ApiClient, signal: AbortSignal): AsyncGenerator<ProcessEvent, void> {
    for (;;) {
      const path = `/api/v1/claude/processes/${this.transcript.processId}/events?after=${this.lastSeq}&limit=${PAGE_LIMIT}`;
      const response = await client.fetch(path, { signal });
      if (response.status !== 200) return this.refused(response.status, await response.text());
      const { items, nextCursor } = (await response.json()) as ProcessEventPage;
      yield* items;
      if (nextCursor === null) return;
      if (items.length === 0) await sleep(AGAIN_MS, undefined, { signal });
    }
  }

  private refused(status: number, body: string): never {
    if (status !== 503)
      this.problem(`it was answered ${status} after ${this.lastSeq}: ${body.slice(0, 300)}`);
    throw new Error(`refused: ${status}`);
  }

  private get lastSeq(): number {
    return this.transcript.events.at(-1)?.seq ?? 0;
  }

  private note(event: ProcessEvent): void {
    const { events, processId } = this.transcript;
    if (event.processId !== processId) this.problem(`it got an event of ${event.processId}`);
    if (event.seq !== this.lastSeq + 1)
      this.problem(
        `after ${this.lastSeq} came ${event.seq} (${event.type}), on connection ${this.transcript.connections}`,
      );
    events.push(event);
    if (!isTerminal(event)) return;
    this.transcript.isOver = true;
    this.saw(event.process);
  }

  private readonly saw = (process: Parameters<Ledger['saw']>[0]) => {
    if (isEnded(process))
      this.options.ledger.saw(process, `${this.reading.transport} at ${this.transcript.at}`);
  };

  private problem(what: string): void {
    this.transcript.problems.push(`${what} (${this.reading.transport} at ${this.transcript.at}).`);
  }
}
