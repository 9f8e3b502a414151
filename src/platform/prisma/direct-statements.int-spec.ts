import { createStores, type TestStores } from '../../../test/support/stores.js';
import { Prisma } from '../../generated/prisma/client.js';
import { readConfig, requireStores } from '../config/config.js';
import { isUniqueViolation } from './database-failure.js';
import { applyMigrations, findMigrations } from './migrations.js';
import { PrismaService } from './prisma.service.js';

describe('a statement past Prisma', () => {
  let stores: TestStores;
  let prisma: PrismaService;

  beforeAll(async () => {
    stores = await createStores();
    await applyMigrations(stores.databaseUrl, findMigrations());
    const { databaseUrl: DATABASE_URL, redisUrl: REDIS_URL } = stores;
    prisma = new PrismaService(requireStores(readConfig({ DATABASE_URL, REDIS_URL })));
  });
  afterAll(async () => {
    await prisma.$disconnect();
    await stores.drop();
  });

  it('takes and answers what it does through Prisma', async () => {
    const bytes = Buffer.from([0, 1, 255]);
    const statement = Prisma.sql`
      SELECT ${'a "\\ text'}::text AS text, ${7}::int AS int, ${2n ** 60n}::bigint AS bigint, ${1.5}::float8 AS float,
        ${true}::boolean AS boolean, ${null}::text AS nothing, ${bytes}::bytea AS bytes, ${['a,"', '{}']}::text[] AS texts,
        ${[true, false]}::boolean[] AS booleans, ${'{"b":[1,null],"a":"\\u0000"}'}::json AS json, ${'{"a":1}'}::jsonb AS jsonb,
        ${new Date(1_234).toISOString()}::timestamptz(3) AS time, ${new Date(5_678)}::timestamptz AS date,
        ${'2f1d4c1e-6a1b-4c3d-8e9f-0a1b2c3d4e5f'}::uuid AS uuid, 'admin'::role AS enum, count(*)::int AS count`;
    const [direct] = await prisma.direct.$queryRaw<Record<string, unknown>[]>(statement);
    const [through] = await prisma.$queryRaw<Record<string, unknown>[]>(statement);
    expect({ ...direct, bytes: null }).toEqual({ ...through, bytes: null });
    expect(Buffer.from(direct?.bytes as Uint8Array)).toEqual(bytes);
    expect(direct).toMatchObject({ bigint: 2n ** 60n, time: new Date(1_234), date: new Date(5_678) });
    expect(await prisma.direct.$queryRaw`SELECT ${1}::int AS one, ${'x'} || ${'y'} AS xy`).toEqual([
      { one: 1, xy: 'xy' },
    ]);
  });

  it('fails with what the database says, but not with what rows hold', async () => {
    const insert = () => prisma.direct.$queryRaw`
      INSERT INTO users (id, email, password_hash) VALUES (gen_random_uuid(), 'secret@example.com', 'x')`;
    await insert();
    const failure: unknown = await insert().catch((error: unknown) => error);
    expect(isUniqueViolation(failure)).toBe(true);
    const said = JSON.stringify(failure, Object.getOwnPropertyNames(failure));
    expect(said).toContain('users_email_key');
    expect(said).not.toContain('secret@example.com');
  });
});
