import { v7 as uuid } from 'uuid';
import { createStores, type TestStores } from '../../test/support/stores.js';
import { readConfig, requireStores } from '../platform/config/config.js';
import { applyMigrations, findMigrations } from '../platform/prisma/migrations.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import type { NewProcessEvent } from './process-events.schemas.js';
import { ProcessLogRepository } from './process-log.repository.js';

const FENCE = 1;

describe('the log of a process, in PostgreSQL', () => {
  let stores: TestStores;
  let prisma: PrismaService;
  let log: ProcessLogRepository;
  let processId: string;

  beforeAll(async () => {
    stores = await createStores();
    await applyMigrations(stores.databaseUrl, findMigrations());
    prisma = new PrismaService(
      requireStores(readConfig({ DATABASE_URL: stores.databaseUrl, REDIS_URL: stores.redisUrl })),
    );
    log = new ProcessLogRepository(prisma);
  });
  afterAll(async () => {
    await prisma.$disconnect();
    await stores.drop();
  });
  beforeEach(async () => {
    processId = uuid();
    const [userId, sessionId] = [uuid(), uuid()];
    const columns = 'id, user_id, session_id, status, prompt, prompt_preview, request, metadata, fence';
    await stores.query(`INSERT INTO users (id, email, password_hash) VALUES ($1, $2, '')`, [userId, userId]);
    await stores.query(`INSERT INTO sessions (id, user_id, workspace_key) VALUES ($1, $2, '')`, [
      sessionId,
      userId,
    ]);
    await stores.query(
      `INSERT INTO processes (${columns}) VALUES ($1, $2, $3, 'running', 'Hi', 'Hi', '{}', '{}', $4)`,
      [processId, userId, sessionId, FENCE],
    );
  });

  const said = (...texts: string[]): NewProcessEvent[] =>
    texts.map((text) => ({ type: 'text', messageId: 'm', text }));
  const run = (lastSeq: number, fence = FENCE) => ({ processId, fence, lastSeq });
  const written = async () =>
    (await log.read(processId, 0, 100)).map((event) => [
      event.seq,
      'text' in event ? event.text : event.type,
    ]);

  it('numbers what is appended without a gap, and gives back what it then reads', async () => {
    const first = await log.append(run(0), said('a', 'b'), {});
    const second = await log.append(run(2), said('c'), {});
    expect([...first!.events, ...second!.events]).toEqual(await log.read(processId, 0, 100));
    expect(await written()).toEqual([
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
    ]);
  });

  it('holds once what is appended again because the answer was lost, even while the first write is under way', async () => {
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => log.append(run(0), said('a', 'b'), {})),
    );
    expect(answers.filter((answer) => answer !== null)).toHaveLength(1);
    expect(await log.append(run(0), said('a', 'b'), {})).toBeNull();
    expect(await written()).toEqual([
      [1, 'a'],
      [2, 'b'],
    ]);
  });

  it('is closed to another fence, and to everybody once it has ended', async () => {
    expect(await log.append(run(0, FENCE + 1), said('a'), {})).toBeNull();
    expect(await log.end(run(0, FENCE + 1), [], { status: 'completed' })).toBeNull();
    const ended = await log.end(run(0), said('last'), { status: 'completed', result: 'Done.' });
    expect(ended?.at(-1)).toMatchObject({
      seq: 2,
      type: 'completed',
      process: { result: 'Done.', lastSeq: 2 },
    });
    expect(await log.end(run(2), [], { status: 'failed' })).toBeNull();
    expect(await log.append(run(2), said('late'), {})).toBeNull();
    expect(await written()).toEqual([
      [1, 'last'],
      [2, 'completed'],
    ]);
  });

  it('has one ending, whoever brings theirs first', async () => {
    const endings = await Promise.all([
      log.end(run(0), [], { status: 'completed' }),
      log.giveUp(run(0), { status: 'failed' }),
      log.end(run(0), [], { status: 'cancelled' }),
      log.requeue(run(0)),
    ]);
    expect(endings.filter((ending) => ending !== null && ending !== false)).toHaveLength(1);
  });

  it('is left by a run that goes back to the queue, as long as it has not started', async () => {
    expect(await log.requeue(run(0))).toBe(true);
    expect(await log.append(run(0), said('late'), {})).toBeNull();
    await stores.query(
      `UPDATE processes SET status = 'running', fence = 2, started_at = now() WHERE id = $1`,
      [processId],
    );
    expect(await log.requeue(run(0, 2))).toBe(false);
  });
});
