import { readdir, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProcessEvent } from '../src/processes/process-events.schemas.js';
import type { Process, ProcessPage } from '../src/processes/processes.schemas.js';
import { RecordedSocket } from './support/recorded-socket.js';
import { startTestServer, type TestServer } from './support/test-server.js';
import { signInAsNewUser } from './support/users.js';

const EXECUTE = '/api/v1/claude/execute';

let runner: TestServer;

beforeAll(async () => {
  runner = await startTestServer({ RETENTION_INTERVAL_MS: '100' });
});
afterAll(() => runner.stop());

const run = async (prompt = '[[text A secret answer.]]\n[[deltas 5 1]]', headers = {}) =>
  (await runner.client.execute({ prompt, metadata: { note: 'a secret note' } }, headers)).body;

/** As if it had ended so many days ago, and a minute. */
const age = ({ id }: Process, days: number) =>
  runner.stores.query(
    `UPDATE processes SET finished_at = finished_at - $2 * interval '1 day' - interval '1 minute' WHERE id = $1`,
    [id, days],
  );

const get = <Body>(path: string, headers = {}) =>
  runner.client.request<Body>('GET', path, undefined, headers);
const statusOf = async (path: string) => (await get(path)).status;

async function untilPruned(process: Process): Promise<Process> {
  await age(process, 30);
  for (;;) {
    const found = await runner.client.find(process.id);
    const left = await runner.stores.query('SELECT 1 FROM process_events WHERE process_id = $1', [
      process.id,
    ]);
    if (found.firstSeq > 1 && left.length === 1) return found;
  }
}

async function collect(events: AsyncIterable<ProcessEvent>): Promise<ProcessEvent[]> {
  const collected: ProcessEvent[] = [];
  for await (const event of events) collected.push(event);
  return collected;
}

describe('a log that is past its days', () => {
  let pruned: Process;
  let before: Process;

  beforeAll(async () => {
    before = await run();
    pruned = await untilPruned(before);
  });

  it('is there no more, but for its end; the process is', () => {
    const { finishedAt, durationMs } = pruned;
    expect(pruned).toEqual({ ...before, firstSeq: before.lastSeq, finishedAt, durationMs });
    expect(pruned.result).toBe('A secret answer.');
  });

  it('says so to whoever wants what is gone, and names what is left, over every transport', async () => {
    const { self, events } = pruned.links;
    const gone = {
      code: 'events_pruned',
      status: 410,
      detail: expect.stringContaining(String(pruned.lastSeq)) as string,
    };
    for (const path of [
      events,
      `${events}?after=0`,
      `${events}?after=${pruned.firstSeq - 2}`,
      `${self}/events/stream`,
    ])
      expect(await get(path)).toMatchObject({ status: 410, body: gone });
    const resumed = await get(`${self}/events/stream`, { 'Last-Event-ID': '1' });
    expect(resumed).toMatchObject({ status: 410, body: gone });
    const socket = await RecordedSocket.connect(runner.client);
    expect(await socket.ask('claude:status', { processId: pruned.id, after: 0 })).toMatchObject({
      ok: false,
      error: gone,
    });
    expect(await socket.ask('claude:status', { processId: pruned.id })).toMatchObject({ ok: true });
    expect(socket.log(pruned.id)).toEqual([]);
    socket.close();
  });

  it('is read from what is left on, over every transport', async () => {
    const after = pruned.firstSeq - 1;
    const { items, nextCursor } = await runner.client.events(pruned.id, `?after=${after}`);
    expect(items).toEqual([expect.objectContaining({ seq: pruned.lastSeq, type: 'completed' })]);
    expect(nextCursor).toBeNull();
    expect(await collect(runner.client.stream(pruned.id, after))).toEqual(items);
    const socket = await RecordedSocket.connect(runner.client);
    await socket.askFor('claude:status', { processId: pruned.id, after });
    await socket.untilEnd(pruned.id);
    expect(socket.log(pruned.id)).toEqual(items);
    socket.close();
    expect(await runner.client.find(pruned.id, { Prefer: 'wait=5' })).toEqual(pruned);
  });
});

describe('a process that is past its days', () => {
  it('goes with its session and its workspace; what is younger stays', async () => {
    const [old, young] = [await run(), await run()];
    const workspaces = join(runner.dataDirectory, 'engine/workspaces');
    const longAgo = new Date(Date.now() - 2 * 60 * 60 * 1000);
    for (const { sessionId } of [old, young]) await utimes(join(workspaces, sessionId), longAgo, longAgo);
    await age(old, 90);
    while ((await statusOf(old.links.self)) !== 404);
    expect(await statusOf(old.links.events)).toBe(404);
    while ((await readdir(workspaces)).includes(old.sessionId));
    expect(await readdir(workspaces)).toContain(young.sessionId);
    expect(await runner.client.find(young.id)).toEqual(young);
    expect(await runner.stores.query('SELECT id FROM sessions WHERE id = $1', [old.sessionId])).toEqual([]);
  });
});

describe('content that is deleted', () => {
  const deleteContent = ({ links }: Process, client = runner.client) =>
    client.request<Process>('DELETE', `${links.self}/content`);

  it('is gone; ids, times, status and cost are left, and the end of the log without its content', async () => {
    const before = await run();
    const { status, body: left } = await deleteContent(before);
    expect(status).toBe(200);
    expect(left).toEqual({
      ...before,
      prompt: null,
      result: null,
      filesChanged: null,
      metadata: {},
      contentDeletedAt: expect.any(String) as string,
      firstSeq: before.lastSeq,
    });
    expect(await runner.client.find(before.id)).toEqual(left);
    const { items } = await runner.client.events(before.id, `?after=${left.firstSeq - 1}`);
    expect(items).toEqual([
      {
        processId: before.id,
        seq: before.lastSeq,
        type: 'completed',
        process: left,
        createdAt: expect.any(String) as string,
      },
    ]);
    expect(await statusOf(before.links.events)).toBe(410);
    const { body: page } = await get<ProcessPage>('/api/v1/claude/processes?limit=1');
    expect(page.items).toEqual([expect.objectContaining({ id: before.id, promptPreview: '', metadata: {} })]);
    const { body: found } = await get<ProcessPage>(
      '/api/v1/claude/processes?metadata[note]=a secret note&limit=100',
    );
    expect(found.items.map(({ id }) => id)).not.toContain(before.id);
    const rows = await runner.stores.query(
      `SELECT processes::text FROM processes WHERE id = $1 UNION ALL SELECT process_events::text FROM process_events WHERE process_id = $1`,
      [before.id],
    );
    expect(JSON.stringify(rows)).not.toMatch(/secret/);
  });

  it('is deleted once, and by nobody else', async () => {
    const process = await run();
    expect(await deleteContent(process, await signInAsNewUser(runner))).toMatchObject({ status: 404 });
    expect(await runner.client.find(process.id)).toEqual(process);
    const first = await deleteContent(process);
    expect(await deleteContent(process)).toMatchObject({ status: 200, body: first.body });
  });

  it('stays while the process runs, and can be deleted once it is cancelled', async () => {
    const prompt = 'Not yet\n[[hang]]';
    const process = await runner.client.submit({ prompt });
    await runner.messages.waitForRequest((request) => request.prompt === prompt);
    expect(await deleteContent(process)).toMatchObject({ status: 409, body: { code: 'process_not_ended' } });
    expect((await runner.client.find(process.id)).prompt).toBe(prompt);
    await runner.client.cancel(process.id);
    await runner.client.untilEnded(process.id);
    expect(await deleteContent(process)).toMatchObject({
      status: 200,
      body: { status: 'cancelled', prompt: null },
    });
  });

  it('is not made anew by its key: the process is still that one', async () => {
    const key = { 'Idempotency-Key': 'deleted' };
    const prompt = '[[text Just once.]]';
    const { body: process } = await runner.client.execute({ prompt }, key);
    await deleteContent(process);
    const again = await runner.client.execute({ prompt }, key);
    expect(again).toMatchObject({ status: 200, body: { id: process.id, result: null } });
    const response = await runner.client.fetch(EXECUTE, {
      method: 'POST',
      headers: { ...key, 'Content-Type': 'application/json', Accept: 'text/event-stream' },
      body: JSON.stringify({ prompt }),
    });
    expect(await response.text()).toMatch(
      new RegExp(`^retry: \\d+\\n\\nid: ${process.lastSeq}\\nevent: completed\\n`),
    );
  });

  it('leaves a reader who is in the middle of it without a hole: the stream breaks off, and says why when it is resumed', async () => {
    const process = await run();
    // Far more than the buffers between server and reader hold.
    const length = 4_000;
    await runner.stores.query(`UPDATE process_events SET seq = $2 WHERE process_id = $1 AND seq = $3`, [
      process.id,
      length,
      process.lastSeq,
    ]);
    await runner.stores.query(
      `INSERT INTO process_events (process_id, seq, type, payload, bytes)
       SELECT $1, n, 'text', json_build_object('type', 'text', 'messageId', 'm', 'text', repeat('x', 8000)), 8050
       FROM generate_series($2::int, $3::int) n`,
      [process.id, process.lastSeq, length - 1],
    );
    await runner.stores.query('UPDATE processes SET last_seq = $2 WHERE id = $1', [process.id, length]);
    const seen: number[] = [];
    const reading = async () => {
      for await (const { seq } of runner.client.stream(process.id)) {
        seen.push(seq);
        if (seq === 1) await deleteContent(process);
      }
    };
    await expect(reading()).rejects.toThrow();
    expect(seen).toEqual(seen.map((_, n) => n + 1));
    expect(seen.length).toBeLessThan(length);
    const resumed = await get(`${process.links.self}/events/stream`, {
      'Last-Event-ID': String(seen.length),
    });
    expect(resumed).toMatchObject({ status: 410, body: { code: 'events_pruned' } });
  });
});
