// `npm run soak`: whether the server's memory stays flat under load with slow readers, over SOAK_MINUTES (30). Prints its
// resident memory as it goes, and the median of each third of the time in the end.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { io } from 'socket.io-client';
import { prepare } from '../scripts/prepared.mjs';

prepare();
const { startEmbeddedPostgres, startEmbeddedRedis } = await import('../dist/libs/embedded-services/index.js');
const { startMessagesApi } = await import('../dist/libs/messages-api/index.js');

const MINUTES = Number(process.env.SOAK_MINUTES ?? 30);
const SLOW_STREAMS = 20;
const SLOW_SOCKETS = 20;
const SLOW_BYTES = 2_048;
const SAMPLE_MS = 5_000;
const LONG_TEXT = 'All work and no play makes a log that is long. '.repeat(18_000);
const deadline = Date.now() + MINUTES * 60_000;

const directory = mkdtempSync(join(tmpdir(), 'claude-runner-soak-'));
const messages = await startMessagesApi();
const postgres = await startEmbeddedPostgres({ directory: join(directory, 'postgres') });
const redis = await startEmbeddedRedis({
  directory: join(directory, 'redis'),
  cacheDirectory: new URL('../.cache/distribution', import.meta.url).pathname,
});
const server = spawn(process.execPath, ['dist/src/main.js'], {
  env: {
    PATH: process.env.PATH,
    PORT: '0',
    LOG_LEVEL: 'warn',
    DATA_DIR: directory,
    DATABASE_URL: postgres.url,
    REDIS_URL: redis.url,
    ANTHROPIC_API_KEY: 'sk-ant-soak',
    ANTHROPIC_BASE_URL: messages.url,
    SHUTDOWN_GRACE_MS: '1000',
  },
  stdio: ['ignore', 'pipe', 'inherit'],
});
const url = await new Promise((resolve) => {
  server.stdout.on('data', (chunk) => {
    const listening = /listens on (http:\S+?)(?:,|\s|$)/.exec(chunk.toString());
    if (listening) resolve(listening[1]);
  });
});
const token = readFileSync(join(directory, 'api-key'), 'utf8').trim();
const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
const isOver = () => Date.now() >= deadline;

let failures = 0;
async function execute(prompt) {
  const response = await fetch(`${url}/api/v1/claude/execute`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ prompt }),
  });
  const process = await response.json();
  if (process.status !== 'completed') {
    failures += 1;
    console.log(`Not completed: ${JSON.stringify(process.error)}`);
  }
  return process;
}

let runs = 0;
async function load() {
  while (!isOver()) {
    await execute(`Load ${runs}\n[[deltas 200 5]]`);
    runs += 1;
  }
}

let slowBytes = 0;
/** Takes a little a second, so that the kernel's buffers are full and the server has to wait. */
async function slowStream(id) {
  while (!isOver()) {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write(
      `GET /api/v1/claude/processes/${id}/events/stream HTTP/1.1\r\nHost: soak\r\nAuthorization: Bearer ${token}\r\n\r\n`,
    );
    while (!isOver() && !socket.destroyed && !socket.readableEnded) {
      slowBytes += socket.read(Math.min(SLOW_BYTES, socket.readableLength || SLOW_BYTES))?.length ?? 0;
      await sleep(1_000);
    }
    socket.destroy();
  }
}

/** Follows the same long log again and again, and lets the connection rest most of the time. */
async function slowSocket(processId) {
  while (!isOver()) {
    const socket = io(url, { auth: { token }, transports: ['websocket'], forceNew: true });
    let ended = false;
    socket.on('claude:progress', (event) => (slowBytes += JSON.stringify(event).length));
    socket.on('claude:complete', () => (ended = true));
    await new Promise((resolve) => socket.once('connect', resolve));
    socket.emit('claude:status', { processId, after: 0 });
    const connection = socket.io.engine.transport.ws._socket ?? null;
    while (!isOver() && !ended && socket.connected) {
      connection?.pause();
      await sleep(999);
      connection?.resume();
      await sleep(1);
    }
    socket.disconnect();
  }
}

const residentMiB = () =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))[1]) / 1024;

const samples = [];
async function watch() {
  while (!isOver()) {
    samples.push(residentMiB());
    if (samples.length % 12 === 0)
      console.log(
        `${(samples.length * SAMPLE_MS) / 60_000} min: ${Math.round(samples.at(-1))} MiB, ${runs} runs, ${Math.round(slowBytes / 1024)} KiB read slowly`,
      );
    await sleep(SAMPLE_MS);
  }
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
try {
  const { id } = await execute(`[[text ${LONG_TEXT}]]\n[[deltas 500 0]]`);
  await Promise.all([
    load(),
    load(),
    watch(),
    ...Array.from({ length: SLOW_STREAMS }, () => slowStream(id)),
    ...Array.from({ length: SLOW_SOCKETS }, () => slowSocket(id)),
  ]);
  const third = Math.floor(samples.length / 3);
  const medians = [0, 1, 2].map((part) =>
    Math.round(median(samples.slice(part * third, (part + 1) * third))),
  );
  console.log(
    `${MINUTES} min, ${runs} runs (${failures} not completed), ${SLOW_STREAMS} slow streams, ${SLOW_SOCKETS} slow sockets. ` +
      `Resident memory, median of each third: ${medians.join(', ')} MiB; peak ${Math.round(Math.max(...samples))} MiB.`,
  );
} finally {
  server.kill('SIGTERM');
  await new Promise((resolve) => server.once('exit', resolve));
  await redis.stop();
  await postgres.stop();
  await messages.close();
  rmSync(directory, { recursive: true, force: true });
}
process.exit();
