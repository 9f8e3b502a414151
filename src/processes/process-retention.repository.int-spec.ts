import { v7 as uuid } from 'uuid';
import { STARTED, WriteSide } from '../../test/support/write-side.js';
import { ProcessRetentionRepository } from './process-retention.repository.js';

const DAYS = 30;

let side: WriteSide;
let retention: ProcessRetentionRepository;

beforeAll(async () => {
  side = await WriteSide.open();
  retention = new ProcessRetentionRepository(side.prisma);
});
afterAll(() => side.close());
beforeEach(() => side.clear());

/** A process that has ended so many days ago, with as many events of text as told. */
async function ended(daysAgo: number, texts = 3): Promise<string> {
  const run = await side.startedRun({
    metadata: { secret: 'of the caller' },
    request: { systemPrompt: 'secret' },
  });
  const events = Array.from({ length: texts }, (_, n) => ({
    type: 'tool_use' as const,
    toolUseId: String(n),
    name: 'Read',
    input: { secret: n },
  }));
  await side.log.append([{ run, lastSeq: run.lastSeq, events, facts: {} }]);
  await side.endings.conclude(run, [], () => ({
    kind: 'end',
    outcome: { status: 'completed', result: 'A secret.', costUsd: 0.5, permissionDenials: [] },
  }));
  await setEnd(run.processId, daysAgo);
  return run.processId;
}

const setEnd = (id: string, daysAgo: number) =>
  side.stores.query(
    `UPDATE processes SET finished_at = now() - $2 * interval '1 day' - interval '1 minute' WHERE id = $1`,
    [id, daysAgo],
  );
const seqsOf = async (id: string) => (await side.events(id)).map(({ seq }) => seq);
const idsIn = async (table: 'processes' | 'sessions') =>
  (await side.stores.query<{ id: string }>(`SELECT id FROM ${table}`)).map(({ id }) => id);

async function pruneDue(): Promise<void> {
  for (const id of await retention.findUnpruned(DAYS, 100)) await retention.prune(id);
}

describe('the log of a process that ended long ago', () => {
  it('loses all but its last event; a younger one, and one that has not ended, lose nothing', async () => {
    const [old, young] = [await ended(DAYS), await ended(DAYS - 1)];
    const running = await side.startedRun();
    const before = await seqsOf(young);
    await pruneDue();
    const row = await side.find(old);
    expect(await seqsOf(old)).toEqual([row.lastSeq]);
    expect(row).toMatchObject({ firstSeq: row.lastSeq, eventsPrunedAt: expect.any(Date) as Date });
    expect(await seqsOf(young)).toEqual(before);
    expect(await seqsOf(running.processId)).toEqual([1, 2, 3]);
    expect(await side.find(running.processId)).toMatchObject({ firstSeq: 1, eventsPrunedAt: null });
  });

  it('is pruned once, and not looked at again', async () => {
    await ended(DAYS);
    expect(await retention.findUnpruned(DAYS, 100)).toHaveLength(1);
    await pruneDue();
    expect(await retention.findUnpruned(DAYS, 100)).toEqual([]);
  });

  it('is kept for ever where that is what was asked for', async () => {
    await ended(10 * DAYS);
    expect(await retention.findUnpruned(0, 100)).toEqual([]);
  });

  it('goes in pieces, and tells its readers before the first', async () => {
    const id = await ended(DAYS, 12_000);
    const { lastSeq } = await side.find(id);
    const readers: { firstSeq: number; left: number[] }[] = [];
    const done = new AbortController();
    const reading = (async () => {
      while (!done.signal.aborted) {
        const left = await seqsOf(id);
        readers.push({ left, firstSeq: (await side.find(id)).firstSeq });
      }
    })();
    await retention.prune(id);
    done.abort();
    await reading;
    expect(await seqsOf(id)).toEqual([lastSeq]);
    // What is left is always an end of the log without a hole in it; what is gone was told to be.
    for (const { left, firstSeq } of readers) {
      expect(left).toEqual(Array.from({ length: left.length }, (_, n) => lastSeq - left.length + 1 + n));
      expect(left.length === lastSeq || firstSeq === lastSeq).toBe(true);
    }
  });

  it('is pruned by two servers at once as by one', async () => {
    const ids = [await ended(DAYS, 2000), await ended(DAYS, 2000)];
    await Promise.all(ids.flatMap((id) => [retention.prune(id), retention.prune(id)]));
    for (const id of ids) expect(await seqsOf(id)).toEqual([(await side.find(id)).lastSeq]);
  });
});

describe('a process that ended long ago', () => {
  it('goes with its log, its names, its commands and the session that was its own', async () => {
    const [old, young] = [await ended(DAYS, 6_000), await ended(DAYS - 1)];
    await side.stores.query(
      `INSERT INTO idempotency_keys (user_id, key, request_hash, process_id, expires_at) VALUES ($1, 'k', '', $2, now())`,
      [side.userId, old],
    );
    const expired = await retention.findExpired(DAYS, 100);
    expect(expired).toEqual([old]);
    await retention.deleteProcesses(expired);
    expect(await idsIn('processes')).toEqual([young]);
    expect(await idsIn('sessions')).toEqual([(await side.find(young)).sessionId]);
    expect(await side.stores.query('SELECT 1 FROM process_events WHERE process_id = $1', [old])).toEqual([]);
    expect(await side.stores.query('SELECT 1 FROM idempotency_keys')).toEqual([]);
  });

  it('leaves a session that something else continued', async () => {
    const [old, young] = [await ended(DAYS), await ended(0)];
    const { sessionId } = await side.find(young);
    await side.stores.query('UPDATE processes SET session_id = $1 WHERE id = $2', [sessionId, old]);
    await retention.deleteProcesses([old]);
    expect(await idsIn('processes')).toEqual([young]);
    expect(await idsIn('sessions')).toContain(sessionId);
  });

  it('does not take a session along that is just being continued', async () => {
    const old = await ended(DAYS);
    const { sessionId } = await side.find(old);
    const next = uuid();
    const continuing = side.prisma.$transaction(async (transaction) => {
      const { id, userId, prompt, promptPreview, fairRank } = await side.find(old);
      expect(id).toBe(old);
      const data = {
        id: next,
        userId,
        sessionId,
        prompt,
        promptPreview,
        fairRank,
        request: {},
        metadata: {},
      };
      await transaction.process.create({ data });
      const deleting = retention.deleteProcesses([old]);
      await side.untilWaitingForLocks(1);
      return { deleting };
    });
    await (
      await continuing
    ).deleting;
    expect(await idsIn('processes')).toEqual([next]);
    expect(await idsIn('sessions')).toEqual([sessionId]);
  });

  it('that has not ended is not deleted, whatever is asked for', async () => {
    const { processId } = await side.startedRun();
    await retention.deleteProcesses([processId]);
    expect(await idsIn('processes')).toEqual([processId]);
    expect(await seqsOf(processId)).toEqual([1, 2, 3]);
  });
});

it('A session without processes goes after its days', async () => {
  const [old, young] = [uuid(), uuid()];
  const kept = await ended(0);
  for (const id of [old, young])
    await side.prisma.session.create({ data: { id, userId: side.userId, workspaceKey: id } });
  await side.stores.query(`UPDATE sessions SET created_at = now() - interval '31 days' WHERE id <> $1`, [
    young,
  ]);
  expect(await retention.deleteEmptySessions(DAYS, 100)).toBe(1);
  expect((await idsIn('sessions')).toSorted()).toEqual([young, (await side.find(kept)).sessionId].toSorted());
});

it('Names go once they have expired', async () => {
  const id = await ended(0);
  await side.stores.query(
    `INSERT INTO idempotency_keys (user_id, key, request_hash, process_id, expires_at)
     SELECT $1, 'k' || n, '', $2, now() + (n - 1500) * interval '1 hour' FROM generate_series(1, 1502) n`,
    [side.userId, id],
  );
  await retention.deleteExpiredKeys();
  expect(await side.stores.query('SELECT key FROM idempotency_keys ORDER BY key')).toEqual([
    { key: 'k1501' },
    { key: 'k1502' },
  ]);
});

describe('the content of a process', () => {
  it('is gone from every table when it is deleted; what is left says that the process was', async () => {
    const id = await ended(0, 6_000);
    const before = await side.find(id);
    const left = await retention.deleteContent(id);
    expect(left).toEqual(await side.find(id).then((row) => ({ ...row, eventsPrunedAt: null })));
    expect(left).toEqual({
      ...before,
      prompt: '',
      promptPreview: '',
      result: null,
      request: {},
      metadata: {},
      permissionDenials: [],
      contentDeletedAt: expect.any(Date) as Date,
      firstSeq: before.lastSeq,
    });
    const [ending, ...more] = await side.events(id);
    expect(more).toEqual([]);
    expect(ending).toMatchObject({
      seq: before.lastSeq,
      type: 'completed',
      process: { id, prompt: null, result: null, metadata: {}, costUsd: 0.5, status: 'completed' },
    });
    const everything = await side.stores.query(
      `SELECT to_jsonb(processes)::text FROM processes UNION ALL SELECT to_jsonb(process_events)::text FROM process_events
       UNION ALL SELECT to_jsonb(process_commands)::text FROM process_commands`,
    );
    expect(JSON.stringify(everything)).not.toMatch(/secret|Do it/i);
  });

  it('takes what was said in the session along with the last of its processes, in whichever order, also at once', async () => {
    const [first, second, third] = [await ended(0), await ended(0), await ended(0)];
    const { sessionId } = await side.find(first);
    await side.stores.query('UPDATE processes SET session_id = $1', [sessionId]);
    await side.stores.query(
      `INSERT INTO session_entries (session_id, ordinal, subpath, head, entry) VALUES ($1, 1, '', 0, '"secret"')`,
      [sessionId],
    );
    const entries = () => side.stores.query('SELECT 1 FROM session_entries');
    const mark = () => side.stores.query('SELECT last_ordinal FROM sessions WHERE id = $1', [sessionId]);
    const before = await mark();
    await retention.deleteContent(second);
    expect(await entries()).toHaveLength(1);
    expect(await mark()).toEqual(before);
    await Promise.all([retention.deleteContent(first), retention.deleteContent(third)]);
    expect(await entries()).toEqual([]);
    expect(await mark()).not.toEqual(before);
  });

  it('is deleted once: doing it again changes nothing', async () => {
    const id = await ended(0);
    await retention.deleteContent(id);
    const [row, events] = [await side.find(id), await side.events(id)];
    await retention.deleteContent(id);
    expect([await side.find(id), await side.events(id)]).toEqual([row, events]);
  });

  it('stays while the process waits or runs', async () => {
    const { processId } = await side.startedRun();
    expect(await retention.deleteContent(processId)).toBeNull();
    const waiting = await side.submit();
    expect(await retention.deleteContent(waiting)).toBeNull();
    expect(await side.eventTypes(processId)).toEqual([
      'created',
      'queued',
      ...STARTED.events.map(({ type }) => type),
    ]);
    expect((await side.find(waiting)).prompt).toBe('Do it');
  });

  it('whose deletion was broken off is deleted by the next sweep, whatever the days', async () => {
    const id = await ended(0);
    await retention.deleteContent(id);
    // As if the server had died after it had told readers, and before the last row was gone.
    await side.stores.query(
      `INSERT INTO process_events (process_id, seq, type, payload, bytes) VALUES ($1, 1, 'raw', '{"type":"raw"}', 1)`,
      [id],
    );
    await side.stores.query('UPDATE processes SET events_pruned_at = NULL WHERE id = $1', [id]);
    expect(await retention.findUnpruned(0, 100)).toEqual([id]);
    await pruneDue();
    expect(await seqsOf(id)).toEqual([(await side.find(id)).lastSeq]);
  });
});

it('A workspace is unused when no session is its own', async () => {
  const { sessionId } = await side.find(await ended(0));
  const unused = uuid();
  expect(await retention.findUnusedWorkspaces([sessionId, unused])).toEqual([unused]);
  expect(await retention.findUnusedWorkspaces([])).toEqual([]);
});
