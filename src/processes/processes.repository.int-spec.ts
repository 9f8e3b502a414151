import pg from 'pg';
import { v7 as uuid } from 'uuid';
import { createStores, type TestStores } from '../../test/support/stores.js';
import { readConfig, requireStores } from '../platform/config/config.js';
import { applyMigrations, findMigrations } from '../platform/prisma/migrations.js';
import { PrismaService } from '../platform/prisma/prisma.service.js';
import { ProcessesRepository } from './processes.repository.js';

const LEASE_MS = 15_000;

describe('claiming', () => {
  let stores: TestStores;
  let prisma: PrismaService;
  let processes: ProcessesRepository;
  const userId = uuid();

  beforeAll(async () => {
    stores = await createStores();
    await applyMigrations(stores.databaseUrl, findMigrations());
    const { databaseUrl: DATABASE_URL, redisUrl: REDIS_URL } = stores;
    prisma = new PrismaService(requireStores(readConfig({ DATABASE_URL, REDIS_URL })));
    processes = new ProcessesRepository(prisma);
    await prisma.user.create({ data: { id: userId, email: 'someone@example.com', passwordHash: '' } });
  });
  afterAll(async () => {
    await prisma.$disconnect();
    await stores.drop();
  });

  const submit = async () => {
    const id = uuid();
    await processes.create({
      id,
      userId,
      sessionId: uuid(),
      prompt: 'Do it',
      promptPreview: 'Do it',
      request: {},
      metadata: {},
      demo: false,
    });
    return id;
  };

  it('takes the oldest first, each once, however many claim at once', async () => {
    const submitted = [await submit(), await submit(), await submit()];
    const claimed = await Promise.all(Array.from({ length: 8 }, () => processes.claim('worker', LEASE_MS)));
    expect(claimed.flatMap((row) => row?.id ?? []).sort()).toEqual(submitted.sort());
  });

  it('waits for a process whose row is locked for something else, and does not leave empty-handed', async () => {
    const id = await submit();
    const other = new pg.Client({ connectionString: stores.databaseUrl });
    await other.connect();
    await other.query('BEGIN');
    await other.query('UPDATE processes SET dispatched_at = now() WHERE id = $1', [id]);
    const claiming = processes.claim('worker', LEASE_MS);
    // The claim has met the lock once it has asked whether something is eligible.
    for (let asked = 0; asked === 0;) {
      const rows = await stores.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%SELECT 1 FROM processes candidate%' AND pid <> pg_backend_pid()`,
      );
      asked = rows[0]?.n ?? 0;
    }
    await other.query('COMMIT');
    await other.end();
    expect((await claiming)?.id).toBe(id);
  });

  it('raises the fence, so that the claim before it can write no more', async () => {
    const id = await submit();
    const first = await processes.claim('worker', LEASE_MS);
    await stores.query(`UPDATE processes SET status = 'pending' WHERE id = $1`, [id]);
    const second = await processes.claim('another', LEASE_MS);
    expect([first?.id, second?.id]).toEqual([id, id]);
    expect(second?.fence).toBe((first?.fence ?? 0) + 1);
  });
});
