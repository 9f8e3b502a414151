import { randomUUID } from 'node:crypto';
import { Logger } from '@nestjs/common';
import type { TranscriptEntry } from '../../libs/claude-engine/index.js';
import { createStores, type TestStores } from '../../test/support/stores.js';
import { readConfig, requireStores } from '../platform/config/config.js';
import { applyMigrations, findMigrations } from '../platform/prisma/migrations.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { TranscriptsRepository } from './transcripts.repository.js';
import { TranscriptsService, type TranscriptWriter } from './transcripts.service.js';

let stores: TestStores;
let prisma: PrismaService;
let transcripts: TranscriptsService;
beforeAll(async () => {
  Logger.overrideLogger(false);
  stores = await createStores();
  await applyMigrations(stores.databaseUrl, findMigrations());
  const urls = { DATABASE_URL: stores.databaseUrl, REDIS_URL: stores.redisUrl };
  prisma = new PrismaService(requireStores(readConfig({ NODE_ENV: 'test', ...urls })));
  transcripts = new TranscriptsService(new TranscriptsRepository(prisma));
});
afterAll(async () => {
  await prisma.$disconnect();
  await stores.drop();
});

interface Session {
  sessionId: string;
  writer: TranscriptWriter;
}

/** A session, with a process that runs. */
async function makeSession(): Promise<Session> {
  const [userId, sessionId, processId] = [randomUUID(), randomUUID(), randomUUID()];
  await prisma.user.create({ data: { id: userId, email: `${userId}@x`, passwordHash: '' } });
  await prisma.session.create({ data: { id: sessionId, userId, workspaceKey: sessionId } });
  const texts = { prompt: 'go', promptPreview: 'go', request: {}, metadata: {} };
  const run = { status: 'running', fence: 1, fairRank: 1 } as const;
  await prisma.process.create({ data: { id: processId, userId, sessionId, ...texts, ...run } });
  return { sessionId, writer: { processId, fence: 1 } };
}

const append = ({ writer }: Session, entries: TranscriptEntry[], subpath = '') =>
  transcripts.append(writer, 'cli-session', { subpath, entries });
const entriesOf = async ({ sessionId }: Session, subpath = '') =>
  (await transcripts.load(sessionId))?.parts.find((part) => part.subpath === subpath)?.entries ?? [];
const numbered = (count: number) =>
  Array.from({ length: count }, (_, number) => ({ type: 'user', uuid: randomUUID(), number }));

describe('a transcript', () => {
  it('in which nothing was said is none', async () => {
    expect(await transcripts.load((await makeSession()).sessionId)).toBeNull();
  });

  it('comes back as far as its bytes allow: whole turns, the last one in any case', async () => {
    const session = await makeSession();
    const { sessionId: id } = session;
    for (const turn of [0, 1, 2]) {
      await prisma.session.update({ where: { id }, data: { head: turn } });
      await append(session, [{ type: 'user', uuid: randomUUID(), turn, text: 'x'.repeat(1000) }]);
      await append(session, [{ type: 'assistant', uuid: randomUUID(), turn, text: 'y'.repeat(1000) }]);
    }
    const repository = new TranscriptsRepository(prisma);
    const turnsIn = async (maxBytes: number) =>
      (await repository.readLatest(id, maxBytes)).map(
        ({ json }) => (JSON.parse(json) as { turn: number }).turn,
      );
    expect(await turnsIn(1_000_000)).toEqual([0, 0, 1, 1, 2, 2]);
    expect(await turnsIn(5000)).toEqual([1, 1, 2, 2]);
    expect(await turnsIn(3500)).toEqual([2, 2]);
    expect(await turnsIn(10)).toEqual([2, 2]);
  });

  it('comes back as it was written, whatever it holds', async () => {
    const session = await makeSession();
    const strange = {
      type: 'user',
      uuid: randomUUID(),
      text: '\u0000 \ud800 \udfff \u{1F468}\u200D\u{1F469} \u2028 "\\ \'; DROP TABLE sessions; --',
      nested: { z: 1, a: [null, 1e21, -0.1, true, { '': '' }], 'ä\u0000': {} },
      long: 'x'.repeat(2_000_000),
    };
    await append(session, [strange]);
    expect(await transcripts.load(session.sessionId)).toEqual({
      cliSessionId: 'cli-session',
      parts: [{ subpath: '', entries: [strange] }],
    });
  });

  it('comes back in order, the parts of subagents apart', async () => {
    const session = await makeSession();
    const [main, agent] = [numbered(60), numbered(30)];
    for (let from = 0; from < 60; from += 20) {
      await append(session, main.slice(from, from + 20));
      await append(session, agent.slice(from / 2, from / 2 + 10), 'subagents/agent-1');
    }
    expect(await entriesOf(session)).toEqual(main);
    expect(await entriesOf(session, 'subagents/agent-1')).toEqual(agent);
  });

  it('holds an entry with a uuid once in each of its parts, and one without as often as it comes', async () => {
    const session = await makeSession();
    const [named, nameless] = [{ type: 'user', uuid: randomUUID() }, { type: 'mode' }];
    await append(session, [named, nameless, named]);
    await append(session, [{ ...named, isAgain: true }, nameless]);
    await append(session, [named], 'subagents/agent-1');
    expect(await entriesOf(session)).toEqual([named, nameless, nameless]);
    expect(await entriesOf(session, 'subagents/agent-1')).toEqual([named]);
  });

  it.each([
    ['another fence', `fence = fence + 1`],
    ['a process that has ended', `status = 'completed'`],
    ['a process that waits again', `status = 'pending'`],
  ])('takes nothing from a writer with %s', async (_, change) => {
    const session = await makeSession();
    const [entry] = numbered(1);
    expect(await append(session, [entry!])).toBe(1);
    await stores.query(`UPDATE processes SET ${change} WHERE id = $1`, [session.writer.processId]);
    expect(await append(session, numbered(1))).toBeNull();
    expect(await entriesOf(session)).toEqual([entry]);
  });

  it('is not mixed up by others that are written at the same time', async () => {
    const sessions = await Promise.all(Array.from({ length: 8 }, makeSession));
    const entries = numbered(50);
    await Promise.all(
      sessions.map(async (session) => {
        for (const entry of entries) await append(session, [entry]);
      }),
    );
    for (const session of sessions) expect(await entriesOf(session)).toEqual(entries);
  });

  it('knows after how many turns each entry came', async () => {
    const session = await makeSession();
    await append(session, numbered(1));
    await stores.query('UPDATE sessions SET head = 3 WHERE id = $1', [session.sessionId]);
    await append(session, numbered(1));
    expect(
      await stores.query('SELECT ordinal, head FROM session_entries WHERE session_id = $1 ORDER BY ordinal', [
        session.sessionId,
      ]),
    ).toEqual([
      { ordinal: 1, head: 0 },
      { ordinal: 2, head: 3 },
    ]);
  });

  it('counts its gaps', async () => {
    const { sessionId } = await makeSession();
    await transcripts.tellGap(sessionId, 'a test');
    await transcripts.tellGap(sessionId, 'a test');
    const rows = await stores.query('SELECT transcript_gaps FROM sessions WHERE id = $1', [sessionId]);
    expect(rows).toEqual([{ transcript_gaps: 2 }]);
  });

  it('goes with its session', async () => {
    const session = await makeSession();
    await append(session, numbered(2));
    await stores.query('DELETE FROM sessions WHERE id = $1', [session.sessionId]);
    expect(await transcripts.load(session.sessionId)).toBeNull();
    expect(
      await stores.query('SELECT 1 FROM session_entries WHERE session_id = $1', [session.sessionId]),
    ).toEqual([]);
  });
});
