import { get, type IncomingMessage } from 'node:http';
import { type MessageAnswer, textAnswer } from '../libs/messages-api/index.js';
import {
  isTerminal,
  type ProcessEvent,
  type TerminalEvent,
} from '../src/processes/process-events.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { readEventStream } from './support/event-stream-reader.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { startTestServer, type TestServer } from './support/test-server.js';

let runner: TestServer;

beforeAll(async () => {
  // One slot: a process waits for as long as another hangs in it.
  runner = await startTestServer({ WORKER_CONCURRENCY: '1' });
});
afterEach(() => runner.messages.reset());
afterAll(() => runner.stop());

const logOf = async (id: string) => (await runner.client.events(id, '?limit=1000')).items;

const textOf = (events: ProcessEvent[]) =>
  events.flatMap((event) => (event.type === 'text' ? [event.text] : [])).join('');

const streamPath = (id: string, after: number) =>
  `/api/v1/claude/processes/${id}/events/stream?after=${after}`;

async function collect(events: AsyncIterable<ProcessEvent>): Promise<ProcessEvent[]> {
  const collected: ProcessEvent[] = [];
  for await (const event of events) collected.push(event);
  return collected;
}

/** Reads the stream from its start, breaking off after every few events and resuming by Last-Event-ID. */
async function collectInPieces(id: string, pieceLength: number): Promise<ProcessEvent[]> {
  const collected: ProcessEvent[] = [];
  while (!collected.some(isTerminal)) {
    let count = 0;
    const headers = { 'Last-Event-ID': String(collected.at(-1)?.seq ?? 0) };
    for await (const event of runner.client.stream(id, 0, headers)) {
      collected.push(event);
      count += 1;
      if (count === pieceLength) break;
    }
  }
  return collected;
}

/** Follows by a socket that is cut off after every few events; the next one resumes with `after`. */
async function collectBySockets(id: string, pieceLength: number): Promise<ProcessEvent[]> {
  const collected: ProcessEvent[] = [];
  while (!collected.some(isTerminal)) {
    const socket = await RecordedSocket.connect(runner.client);
    await socket.askFor('claude:status', { processId: id, after: collected.at(-1)?.seq ?? 0 });
    await socket.until(() => socket.log(id).length >= pieceLength || socket.log(id).some(isTerminal));
    socket.close();
    collected.push(...socket.log(id));
  }
  return collected;
}

/** All pages of the log. */
async function collectPages(id: string, limit: number): Promise<ProcessEvent[]> {
  const collected: ProcessEvent[] = [];
  let after: number | null = 0;
  while (after !== null) {
    const page = await runner.client.events(id, `?after=${after}&limit=${limit}`);
    expect(page.items.length).toBeLessThanOrEqual(limit);
    expect(page.lastSeq).toBeGreaterThanOrEqual(page.items.at(-1)?.seq ?? 0);
    collected.push(...page.items);
    after = page.nextCursor;
  }
  return collected;
}

describe('the log of a process', () => {
  let id: string;
  let log: ProcessEvent[];
  let live: Record<string, ProcessEvent[]>;

  beforeAll(async () => {
    const blocker = await runner.client.submit({ prompt: '[[hang]]' });
    await runner.client.waitForEvent(blocker.id, ({ type }) => type === 'started');
    const process = await runner.client.submit({
      prompt:
        'Look around.\n[[think Where was it?]]\n[[tool Write {"file_path":"a.txt","content":"🙂"}]]\n' +
        '[[text There it is, 🙂 where it has always been]]\n[[deltas 12 40]]',
      permissionMode: 'acceptEdits',
    });
    id = process.id;
    // These readers are there before the run begins.
    const reading = {
      'a stream': collect(runner.client.stream(id)),
      'a stream that breaks off after each event': collectInPieces(id, 1),
      'a stream that breaks off after every three events': collectInPieces(id, 3),
      'a socket': collectBySockets(id, Infinity),
      'a socket that breaks off after every two events': collectBySockets(id, 2),
    };
    await runner.client.waitForEvent(id, ({ type }) => type === 'queued');
    await runner.client.cancel(blocker.id);
    // And these come while it is under way.
    await runner.client.waitForEvent(id, ({ type }) => type === 'text');
    const joining = {
      'a stream that came late': collect(runner.client.stream(id)),
      'a socket that came late': collectBySockets(id, Infinity),
      'pages of one': collectWhileItGrows(id),
    };
    const names = { ...reading, ...joining };
    const read = await Promise.all(Object.values(names));
    live = Object.fromEntries(Object.keys(names).map((name, index) => [name, read[index]!]));
    log = await logOf(id);
  });

  /** Pages of one event, asked for again and again until the log has ended. */
  async function collectWhileItGrows(processId: string): Promise<ProcessEvent[]> {
    const collected: ProcessEvent[] = [];
    for (let after: number | null = 0; after !== null;) {
      const page = await runner.client.events(processId, `?after=${after}&limit=1`);
      collected.push(...page.items);
      after = page.nextCursor;
    }
    return collected;
  }

  it('tells what happened, in order', () => {
    const types = log.map(({ type }) => type);
    // Deltas that wait together are joined, so their number is not given.
    expect(types.filter((type, index) => type !== types[index - 1])).toEqual([
      'created',
      'queued',
      'started',
      'thinking',
      'tool_use',
      'usage',
      'tool_result',
      'text',
      'message',
      'usage',
      'completed',
    ]);
    expect(log[0]).toMatchObject({ process: { id, status: 'pending', lastSeq: 1, queuePosition: 1 } });
    expect(log[1]).toMatchObject({ position: 1 });
    const text = 'There it is, 🙂 where it has always been';
    expect(textOf(log)).toBe(text);
    expect(log.find((event) => event.type === 'message')).toMatchObject({ turn: 2, text });
  });

  it('is numbered from 1 without a gap, and ends with its only terminal event', async () => {
    expect(log.map(({ seq }) => seq)).toEqual(log.map((_, index) => index + 1));
    expect(log.every(({ processId }) => processId === id)).toBe(true);
    expect(log.filter(isTerminal)).toEqual([log.at(-1)]);
    expect((log.at(-1) as TerminalEvent).process).toEqual(await runner.client.find(id));
    expect((log.at(-1) as TerminalEvent).process.lastSeq).toBe(log.length);
  });

  it.each([
    'a stream',
    'a stream that breaks off after each event',
    'a stream that breaks off after every three events',
    'a socket',
    'a socket that breaks off after every two events',
    'a stream that came late',
    'a socket that came late',
    'pages of one',
  ])('has been read live, whole and once, by %s', (reader) => {
    expect(live[reader]).toEqual(log);
  });

  it.each([1, 2, 3, 7, 1000])('reads the same afterwards in pages of %i', async (limit) => {
    expect(await collectPages(id, limit)).toEqual(log);
  });

  it('has no next page at its end', async () => {
    const page = await runner.client.events(id, `?after=${log.length}`);
    expect(page).toEqual({ items: [], nextCursor: null, lastSeq: log.length });
  });

  it('streams the same afterwards from every cursor, by ?after and by Last-Event-ID', async () => {
    for (let after = 0; after <= log.length; after += 1) {
      const [byQuery, byHeader] = await Promise.all([
        collect(runner.client.stream(id, after)),
        // What the client has seen outranks where it began.
        collect(runner.client.stream(id, 0, { 'Last-Event-ID': String(after) })),
      ]);
      expect(byQuery).toEqual(log.slice(after));
      expect(byHeader).toEqual(log.slice(after));
    }
  });

  it('comes the same afterwards from every cursor over a socket', async () => {
    for (let after = 0; after < log.length; after += 1) {
      const socket = await RecordedSocket.connect(runner.client);
      await socket.askFor('claude:status', { processId: id, after });
      await socket.untilEnd(id);
      expect(socket.log(id)).toEqual(log.slice(after));
      expect(socket.all('claude:complete', id)).toHaveLength(1);
      socket.close();
    }
  });

  it('is silent over a socket that has it all already', async () => {
    const socket = await RecordedSocket.connect(runner.client);
    await socket.askFor('claude:status', { processId: id, after: log.length });
    // Whatever the follow had to say would come before this answer.
    await socket.askFor('claude:unfollow', { processId: id });
    expect(socket.heard.map(({ name }) => name)).toEqual(['ack', 'ack']);
    socket.close();
  });

  it('is not streamed from a cursor that it has not come to', async () => {
    const path = streamPath(id, log.length + 1);
    expect(await runner.client.request('GET', path)).toMatchObject({
      status: 400,
      body: { code: 'cursor_invalid' },
    });
  });

  it('names each event of the stream by its seq and its type', async () => {
    const response = await runner.client.fetch(streamPath(id, 0));
    const sent = [];
    for await (const { id: eventId, event } of readEventStream(response)) sent.push([eventId, event]);
    expect(sent).toEqual(log.map(({ seq, type }) => [String(seq), type]));
  });
});

describe('what the CLI says and nobody knows', () => {
  it('is in the log as raw: its line for those who ask for it, its number for all', async () => {
    const { id } = await runner.client.submit({
      prompt: '[[tool Write {"file_path":"a.txt","content":"hi"}]]',
      permissionMode: 'deny',
    });
    await runner.client.untilEnded(id);
    const plain = await logOf(id);
    const whole = (await runner.client.events(id, '?limit=1000&include=raw')).items;
    const raw = whole.filter((event) => event.type === 'raw');
    expect(raw).not.toEqual([]);
    for (const { line } of raw) expect(line).toMatchObject({ type: expect.any(String) as string });
    const withoutLines = whole.map((event) => (event.type === 'raw' ? { ...event, line: null } : event));
    expect(plain).toEqual(withoutLines);

    const response = await runner.client.fetch(`${streamPath(id, 0)}&include=raw`);
    const streamed: ProcessEvent[] = [];
    for await (const { data } of readEventStream(response)) streamed.push(JSON.parse(data) as ProcessEvent);
    expect(streamed).toEqual(whole);
    expect(await collect(runner.client.stream(id))).toEqual(plain);

    const socket = await RecordedSocket.connect(runner.client);
    await socket.askFor('claude:status', { processId: id, after: 0, include: 'raw' });
    await socket.untilEnd(id);
    expect(socket.log(id)).toEqual(whole);
    socket.close();
  });
});

describe('a reader that is slow', () => {
  const LARGE = 'All work and no play makes Jack a dull boy. '.repeat(20_000);

  /** A stream of which nothing is read until `resume()`. */
  async function openPaused(id: string): Promise<IncomingMessage> {
    const headers = { Authorization: `Bearer ${runner.client.token!}` };
    return new Promise((resolve, reject) => {
      get(runner.url + streamPath(id, 0), { headers }, (response) => {
        response.pause();
        resolve(response);
      }).on('error', reject);
    });
  }

  it('gets all of a large log, though it took nothing before the end', async () => {
    // 900 KB of prompt and 900 KB of answer: about 5 MB of log.
    const { id } = await runner.client.submit({ prompt: `[[echo]]\n[[deltas 100 1]]\n${LARGE}` });
    const paused = await openPaused(id);
    const socket = await RecordedSocket.connect(runner.client);
    await socket.askFor('claude:status', { processId: id, after: 0 });
    const { ws } = socket.socket.io.engine.transport as unknown as { ws: Pausable };
    ws.pause();

    expect(await runner.client.untilEnded(id)).toMatchObject({ status: 'completed' });
    ws.resume();
    await socket.untilEnd(id);
    socket.close();
    const response = { body: paused.resume() } as unknown as Response;
    const streamed: ProcessEvent[] = [];
    for await (const { data } of readEventStream(response)) streamed.push(JSON.parse(data) as ProcessEvent);

    const log = await logOf(id);
    expect(log.map(({ seq }) => seq)).toEqual(log.map((_, index) => index + 1));
    expect(streamed).toEqual(log);
    expect(socket.log(id)).toEqual(log);
    expect(textOf(log)).toBe((log.at(-1) as TerminalEvent).process.prompt);
  });

  it('falls behind a log that is written faster than it reads, and misses nothing', async () => {
    const { id } = await runner.client.submit({ prompt: '[[deltas 3000 4]]' });
    const read: ProcessEvent[] = [];
    for await (const event of runner.client.stream(id)) {
      read.push(event);
      await runner.client.find(id);
    }
    const log = await collectPages(id, 1000);
    // More than any reader is given in one go.
    expect(log.length).toBeGreaterThan(256);
    expect(read).toEqual(log);
  });
});

interface Pausable {
  pause: () => void;
  resume: () => void;
}

describe('text that is cut or broken', () => {
  /** What becomes of a prompt whose answer comes in these pieces. */
  async function answeredWith(answer: MessageAnswer): Promise<{ process: Process; log: ProcessEvent[] }> {
    runner.messages.script(() => answer);
    const { id } = await runner.client.submit({ prompt: 'Say something difficult.' });
    const process = await runner.client.untilEnded(id);
    return { process, log: await logOf(id) };
  }

  it('between the halves of surrogate pairs arrives whole', async () => {
    const halves = ['A \uD83D', '\uDE42 and ', '\uD83D', '\uDE43', ' and \uD83D', '\uDE44\uD83D', '\uDE45.'];
    const { process, log } = await answeredWith(textAnswer(halves, { deltaMs: 500 }));
    expect(process).toMatchObject({ status: 'completed', result: 'A 🙂 and 🙃 and 🙄🙅.' });
    expect(textOf(log)).toBe('A 🙂 and 🙃 and 🙄🙅.');
    expect(log.filter((event) => event.type === 'text').length).toBeGreaterThan(1);
    expect(JSON.stringify(log)).not.toMatch(/\\ud[89a-f]/i);
  });

  it.each([
    ['NUL', ['a\0b', '\0', 'c\0'], 'a\uFFFDb\uFFFDc\uFFFD'],
    ['a half pair in the middle', ['a\uD83Db', 'c\uDE42d'], 'a\uFFFDbc\uFFFDd'],
    ['a half pair between two pieces', ['a\uD83D', 'b', '\uDE42c'], 'a\uFFFDb\uFFFDc'],
    ['a half pair at the end', ['a', 'b\uD83D'], 'ab\uFFFD'],
  ])('by %s is replaced, and nothing fails', async (_, pieces, expected) => {
    const { process, log } = await answeredWith(textAnswer(pieces, { deltaMs: 60 }));
    expect(process).toMatchObject({ status: 'completed', result: expected });
    expect(log.find((event) => event.type === 'message')).toMatchObject({ text: expected });
    expect(textOf(log)).toBe(expected);
  });
});
