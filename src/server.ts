import helmet from '@fastify/helmet';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Logger } from 'nestjs-pino';
import { AppModule } from './app.module.js';
import { Authenticator } from './auth/authenticator.js';
import { FirstStart } from './auth/first-start.js';
import { OpenCredentials } from './auth/open-credentials.js';
import { serveOpenApi } from './openapi.js';
import type { ServerConfig } from './platform/config/config.js';
import { Lifecycle } from './platform/health/lifecycle.js';
import { fastifyOptions, helmetOptions } from './platform/http/fastify-options.js';
import { readJsonBodies } from './platform/http/json-bodies.js';
import { nameWildcards } from './platform/http/named-wildcards.js';
import { OpenConnections } from './platform/http/open-connections.js';
import { refuseOtherMethods } from './platform/http/other-methods.js';
import { readStreamedBodies } from './platform/http/streamed-bodies.js';
import { applyMigrations, findMigrations, requireMigrated } from './platform/prisma/migrations.js';
import { type SocketAccess, SocketAdapter } from './platform/sockets/socket.adapter.js';
import { orLate } from './platform/timing/or-late.js';
import { ProcessDrain } from './processes/process-drain.js';

/** How long a shutdown waits for answers that are on their way. */
const ANSWER_GRACE_MS = 5_000;
const CLOSE_GRACE_MS = 10_000;

export interface RunningServer {
  /** Where it listens. */
  readonly url: string;
  /** Null on a server that does not serve the API. */
  readonly administratorEmail: string | null;
  /** Lets what runs end, for `SHUTDOWN_GRACE_MS` at most, and stops. */
  close(): Promise<void>;
  /** During `close`: do not wait any longer for what runs. */
  hurry(): void;
}

/**
 * Migrates, if it may, and serves in the role that the configuration says.
 * @param signal ends the wait for a database that is away, by an AbortError
 */
export async function startServer(config: ServerConfig, signal?: AbortSignal): Promise<RunningServer> {
  const migrate = config.MIGRATE_ON_START ? applyMigrations : requireMigrated;
  await migrate(config.DATABASE_URL, findMigrations(), { patienceMs: config.START_PATIENCE_MS, signal });
  const app = await NestFactory.create<NestFastifyApplication>(
    AppModule.for(config),
    new FastifyAdapter(fastifyOptions(config)),
    {
      logger: ['error', 'warn', 'fatal'],
      abortOnError: false,
      bodyParser: false, // Nest would also read forms
    },
  );
  const drain = () => app.get(Lifecycle).drain();
  signal?.addEventListener('abort', drain, { once: true });
  try {
    signal?.throwIfAborted();
    const fastify = app.getHttpAdapter().getInstance();
    readJsonBodies(fastify);
    readStreamedBodies(fastify, config.REQUEST_TIMEOUT_MS);
    nameWildcards(fastify);
    const afterRoutes = refuseOtherMethods(fastify);
    await app.register(helmet, helmetOptions);
    const sockets = new SocketAdapter(app, socketAccess(app));
    app.useWebSocketAdapter(sockets);
    if (config.servesApi) serveOpenApi(app);
    await app.init();
    afterRoutes();
    app.useLogger(app.get(Logger));
    const connections = new OpenConnections(app.getHttpServer());
    await app.listen(config.PORT, config.HOST);
    return running(app, config, { sockets, connections });
  } catch (error) {
    const closing = app.close().catch(() => undefined);
    await orLate(closing, CLOSE_GRACE_MS);
    throw error;
  } finally {
    signal?.removeEventListener('abort', drain);
  }
}

interface Doors {
  sockets: SocketAdapter;
  connections: OpenConnections;
}

function running(app: NestFastifyApplication, config: ServerConfig, doors: Doors): RunningServer {
  const lifecycle = app.get(Lifecycle);
  let closing: Promise<void> | null = null;
  return {
    url: urlOf(app, config),
    administratorEmail: config.servesApi ? app.get(FirstStart, { strict: false }).administratorEmail : null,
    hurry: () => lifecycle.hurry(),
    close: () => (closing ??= shutDown(app, config, doors)),
  };
}

/** Readiness and submits say no, streams and waits are told to come again, what runs may end; then everything closes. */
async function shutDown(
  app: NestFastifyApplication,
  config: ServerConfig,
  { sockets, connections }: Doors,
): Promise<void> {
  const lifecycle = app.get(Lifecycle);
  lifecycle.drain();
  sockets.disconnectAll();
  const grace = setTimeout(() => lifecycle.hurry(), config.SHUTDOWN_GRACE_MS);
  if (config.runsProcesses) await app.get(ProcessDrain, { strict: false }).drain(lifecycle.hurrySignal);
  clearTimeout(grace);
  await connections.answered(ANSWER_GRACE_MS);
  connections.close();
  // Everything durable is done. What still does not let go of a store that is away ends with the process.
  await orLate(app.close(), CLOSE_GRACE_MS);
}

function socketAccess(app: NestFastifyApplication): SocketAccess {
  const authenticator = app.get(Authenticator, { strict: false });
  const openCredentials = app.get(OpenCredentials, { strict: false });
  return {
    authenticate: (token) => authenticator.authenticate({ authorization: `Bearer ${token}` }),
    hold: (caller, end) => openCredentials.hold(caller, end),
  };
}

function urlOf(app: NestFastifyApplication, { HOST }: ServerConfig): string {
  const address = app.getHttpServer().address();
  const port = typeof address === 'object' && address ? address.port : 0;
  return `http://${HOST.includes(':') ? `[${HOST}]` : HOST}:${port}`;
}
