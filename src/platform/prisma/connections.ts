import pg from 'pg';

const PATIENCE_MS = 60_000;
/**
 * How long a connection lies idle before it is closed. One that is new costs whoever gets it 10 ms: PostgreSQL reads its catalogs and
 * plans each statement for it (docs/adr/0033).
 */
const IDLE_MS = 300_000;
/** How soon one that is idle is probed, before anything on the way forgets it. */
const PROBE_MS = 60_000;
const LIFE = { idleTimeoutMillis: IDLE_MS, keepAlive: true, keepAliveInitialDelayMillis: PROBE_MS };
/** How node-postgres words that `query_timeout` is over. */
const NO_ANSWER = 'Query read timeout';
/** feature_not_supported, invalid_sql_statement_name. */
const STALE_PLAN: ReadonlySet<string> = new Set(['0A000', '26000']);
/** Begins a statement that may rightly take long: it is given a minute. */
export const PATIENT = '/* patient */';

interface Statement {
  text?: unknown;
  query_timeout?: number;
}

/**
 * A pool whose connections do not die one by one. A connection that is cut without a word keeps its question until `query_timeout`,
 * and node-postgres then keeps the connection. Here it is closed, so that what else waits for it fails at once; and so are all
 * that lie idle, for what killed the one has probably killed them too, and each would cost somebody the same time.
 */
export function openPool(config: pg.PoolConfig): pg.Pool {
  const idle = new Set<pg.ClientBase>();

  class Client extends pg.Client {
    // One signature for all of them.
    override query(...given: unknown[]): never {
      const statement = given[0] as Statement;
      if (typeof statement.text === 'string' && statement.text.trimStart().startsWith(PATIENT))
        statement.query_timeout = PATIENCE_MS;
      const see = (error: unknown) => this.see(error);
      const watched = given.map((each) =>
        typeof each === 'function' ? telling(see, each as Callback) : each,
      );
      const result: unknown = Reflect.apply(super.query.bind(this) as Callback, this, watched);
      if (result instanceof Promise) result.catch(see);
      return result as never;
    }

    private see(error: unknown): void {
      if (hasStalePlan(error)) cut(this);
      if (!(error instanceof Error) || error.message !== NO_ANSWER) return;
      cut(this);
      for (const client of idle) {
        // The pool listens to those that lie idle, and lets go of one that fails before anybody else is given it.
        client.emit('error', error);
        cut(client);
      }
      idle.clear();
    }
  }

  // Prisma's adapter takes every time for one of this zone.
  const onConnect = (client: pg.ClientBase) => client.query(`SET TIME ZONE 'UTC'`);
  // eslint-disable-next-line @typescript-eslint/no-misused-promises -- pg-pool waits for it; its types do not say so
  const pool = new pg.Pool({ ...LIFE, ...config, Client, onConnect });
  pool.on('connect', (client) => {
    // Told to whoever asks by it next, or to the pool; to nobody in between.
    client.on('error', () => undefined);
  });
  pool.on('acquire', (client) => idle.delete(client));
  pool.on('release', (_error, client) => idle.add(client));
  pool.on('remove', (client) => idle.delete(client));
  pool.on('error', () => undefined);
  return pool;
}

/**
 * A connection that prepared a statement before the schema was changed would fail with it again and again (`cached plan must not
 * change result type`), and so would one whose statements somebody in between has forgotten.
 */
const hasStalePlan = (error: unknown) =>
  error instanceof Error && STALE_PLAN.has((error as { code?: string }).code ?? '');

type Callback = (...given: unknown[]) => unknown;

const telling =
  (see: (error: unknown) => void, callback: Callback): Callback =>
  (...given) => {
    see(given[0]);
    return callback(...given);
  };

/** At once: to say good-bye would be another question. */
export function cut(client: pg.ClientBase): void {
  (client as unknown as { connection: { stream: { destroy: () => void } } }).connection.stream.destroy();
}
