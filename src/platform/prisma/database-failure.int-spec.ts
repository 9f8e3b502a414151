import { randomBytes } from 'node:crypto';
import { v7 as uuid } from 'uuid';
import { createStores, type TestStores } from '../../../test/support/stores.js';
import { readConfig, requireStores } from '../config/config.js';
import { isStoreOutage, isTransient, isUniqueViolation } from './database-failure.js';
import { applyMigrations, findMigrations } from './migrations.js';
import { PrismaService } from './prisma.service.js';

/** What PostgreSQL really says, as it comes through Prisma and past it. */
describe('a failure of the database', () => {
  let stores: TestStores;
  const connections: PrismaService[] = [];

  beforeAll(async () => {
    stores = await createStores();
    await applyMigrations(stores.databaseUrl, findMigrations());
  });
  afterEach(async () => {
    for (const prisma of connections.splice(0)) await prisma.$disconnect();
  });
  afterAll(() => stores.drop());

  const connect = (url: URL) => {
    const config = readConfig({ DATABASE_URL: url.toString(), REDIS_URL: stores.redisUrl });
    const prisma = new PrismaService(requireStores(config));
    connections.push(prisma);
    return prisma;
  };
  const withSettings = (settings: Record<string, string>) => {
    const url = new URL(stores.databaseUrl);
    const options = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`);
    url.searchParams.set('options', options.join(' '));
    return connect(url);
  };
  const asIs = () => connect(new URL(stores.databaseUrl));
  const failureOf = (failing: Promise<unknown>) =>
    failing.then(
      () => Promise.reject(new Error('It did not fail.')),
      (error: unknown) => error,
    );
  const newUser = () => ({ data: { id: uuid(), email: uuid(), passwordHash: '' } });

  describe('that passes: the same may succeed later', () => {
    const outages: Record<string, () => Promise<unknown>> = {
      'the server is not there': () => {
        const url = Object.assign(new URL(stores.databaseUrl), { port: '1' });
        return failureOf(connect(url).user.findMany());
      },
      'the server is not there, for a direct statement': () => {
        const url = Object.assign(new URL(stores.databaseUrl), { port: '1' });
        return failureOf(connect(url).direct.$queryRaw`SELECT 1`);
      },
      'the connection was ended, of a direct statement': async () => {
        const prisma = asIs();
        const failing = failureOf(prisma.direct.$queryRaw`SELECT pg_sleep(60), 'to be ended' AS mark`);
        const end = () =>
          stores.query(
            `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE query LIKE '%to be ended%' AND pid <> pg_backend_pid() AND datname = current_database()`,
          );
        while ((await end()).length === 0);
        return failing;
      },
      'a direct statement took too long': () =>
        failureOf(withSettings({ statement_timeout: '20' }).direct.$queryRaw`SELECT 1 FROM pg_sleep(5)`),
      'the connection was ended': async () => {
        const prisma = asIs();
        const failing = failureOf(
          prisma.$transaction(async (transaction) => {
            const [row] = await transaction.$queryRaw<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`;
            await stores.query('SELECT pg_terminate_backend($1, 5000)', [row?.pid]);
            await transaction.user.findMany();
          }),
        );
        return failing;
      },
      'there are too many connections': async () => {
        const role = `crowded_${randomBytes(6).toString('hex')}`;
        await stores.query(`CREATE ROLE ${role} LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0`);
        const url = Object.assign(new URL(stores.databaseUrl), { username: role, password: 'crowded' });
        const failure = await failureOf(connect(url).user.findMany());
        await stores.query(`DROP ROLE ${role}`);
        return failure;
      },
      'the server is a standby, or out of space for writes': () =>
        failureOf(withSettings({ default_transaction_read_only: 'on' }).user.create(newUser())),
      'a statement took too long': () =>
        failureOf(withSettings({ statement_timeout: '20' }).$queryRaw`SELECT 1 FROM pg_sleep(5)`),
      'a transaction was left alone for too long': () => {
        const prisma = withSettings({});
        return failureOf(
          prisma.$transaction(async (transaction) => {
            await transaction.$executeRaw`SET LOCAL idle_in_transaction_session_timeout = 20`;
            const [row] = await transaction.$queryRaw<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`;
            const isThere = () => stores.query('SELECT 1 FROM pg_stat_activity WHERE pid = $1', [row?.pid]);
            while ((await isThere()).length > 0);
            await transaction.user.findMany();
          }),
        );
      },
      'a lock was not to be had': async () => {
        const { data } = newUser();
        await asIs().user.create({ data });
        const waiting = withSettings({ lock_timeout: '20' });
        return asIs().$transaction(async (transaction) => {
          await transaction.$queryRaw`SELECT 1 FROM users WHERE id = ${data.id}::uuid FOR UPDATE`;
          return failureOf(waiting.user.update({ where: { id: data.id }, data: { passwordHash: 'x' } }));
        });
      },
    };

    it.each(Object.entries(outages))('%s', async (_, failing) => {
      const failure = await failing();
      expect({ failure, isStoreOutage: isStoreOutage(failure), isTransient: isTransient(failure) }).toEqual({
        failure,
        isStoreOutage: true,
        isTransient: true,
      });
    });

    it('a deadlock, which is no outage', async () => {
      const [first, second] = [newUser(), newUser()];
      const prisma = asIs();
      for (const user of [first, second]) await prisma.user.create(user);
      let arrived = 0;
      let meet: () => void = () => undefined;
      const met = new Promise<void>((resolve) => (meet = resolve));
      const lockInOrder = (ids: string[]) =>
        prisma.$transaction(async (transaction) => {
          await transaction.$queryRaw`SELECT 1 FROM users WHERE id = ${ids[0]}::uuid FOR UPDATE`;
          arrived += 1;
          if (arrived === 2) meet();
          await met;
          await transaction.$queryRaw`SELECT 1 FROM users WHERE id = ${ids[1]}::uuid FOR UPDATE`;
        });
      const ids = [first.data.id, second.data.id];
      const settled = await Promise.allSettled([lockInOrder(ids), lockInOrder(ids.toReversed())]);
      const reasons = settled.flatMap((each) => (each.status === 'rejected' ? [each.reason as unknown] : []));
      expect(reasons.map((reason) => [isTransient(reason), isStoreOutage(reason)])).toEqual([[true, false]]);
    });
  });

  describe('that stays: the same is refused again', () => {
    const refusals: Record<string, () => Promise<unknown>> = {
      'a text that cannot be stored': () =>
        failureOf(asIs().$queryRaw`SELECT ${JSON.stringify({ type: '\0' })}::json->>'type'`),
      'a direct statement that is wrong': () => failureOf(asIs().direct.$queryRaw`SELECT nonsense`),
      'a statement that is wrong': () => failureOf(asIs().$queryRaw`SELECT nonsense`),
      'a value that is taken': async () => {
        const user = newUser();
        await asIs().user.create(user);
        const failure = await failureOf(asIs().user.create(user));
        expect(isUniqueViolation(failure)).toBe(true);
        return failure;
      },
    };

    it.each(Object.entries(refusals))('%s', async (_, failing) => {
      const failure = await failing();
      expect([isStoreOutage(failure), isTransient(failure)]).toEqual([false, false]);
    });
  });
});
