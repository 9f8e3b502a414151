import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  findBubblewrap,
  startEmbeddedPostgres,
  startEmbeddedRedis,
} from '../dist/libs/embedded-services/index.js';
import { startMessagesApi, textAnswer } from '../dist/libs/messages-api/index.js';

const ANSWER = ['The ', 'answer ', 'comes ', 'at ', 'once.'];
const PATIENCE_MS = 60_000;

/**
 * A whole server, a process of its own, on stores of its own, durable as they are by default, with a Messages API that answers
 * at once unless `script` says otherwise. The sandbox is on. `startBeside` starts another one on the same stores, with a data
 * directory of its own; `kill` takes a signal, and resolves when it has ended.
 */
export async function withServer(use, { script = () => textAnswer(ANSWER), environment = {} } = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'claude-runner-bench-'));
  const cacheDirectory = new URL('../.cache/distribution', import.meta.url).pathname;
  const searchPath = process.env.PATH;
  const messages = await startMessagesApi({ script });
  const postgres = await startEmbeddedPostgres({ directory: join(directory, 'postgres') });
  const redis = await startEmbeddedRedis({ directory: join(directory, 'redis'), cacheDirectory });
  const bwrapPath = await findBubblewrap({ cacheDirectory, searchPath });
  const shared = {
    PATH: process.env.PATH,
    PORT: '0',
    LOG_LEVEL: 'debug',
    DATABASE_URL: postgres.url,
    REDIS_URL: redis.url,
    ANTHROPIC_API_KEY: 'sk-ant-bench',
    ANTHROPIC_BASE_URL: messages.url,
    CLAUDE_SANDBOX: process.platform === 'linux' ? 'required' : 'off',
    ...(bwrapPath ? { CLAUDE_BWRAP_PATH: bwrapPath } : {}),
    WORKER_CONCURRENCY: '4',
    SHUTDOWN_GRACE_MS: '1000',
    ...environment,
  };
  const servers = [];
  const start = async (dataDirectory, more = {}) => {
    const server = startServer({ ...shared, DATA_DIR: dataDirectory, ...more });
    servers.push(server);
    return { ...server, directory: dataDirectory, url: await server.url };
  };
  const startBeside = (more) => start(mkdtempSync(join(directory, 'beside-')), more);
  try {
    const server = await start(directory);
    const key = readFileSync(join(directory, 'api-key'), 'utf8').trim();
    await use({ ...server, key, messages, messagesUrl: messages.url, startBeside });
  } finally {
    await Promise.all(servers.map(({ kill }) => kill('SIGTERM')));
    await redis.stop();
    await postgres.stop();
    await messages.close();
    // What a server that was killed had started may need a moment to be gone.
    rmSync(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

function startServer(env) {
  const server = spawn(process.execPath, ['dist/src/main.js'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise((resolve) => server.once('exit', resolve));
  const log = new ServerLog(server.stdout);
  const ended = exited.then(() => Promise.reject(new Error(`The server ended:\n${log.lines.join('\n')}`)));
  const kill = (signal) => {
    server.kill(signal);
    return exited;
  };
  return { pid: server.pid, log, kill, url: Promise.race([log.url, ended]) };
}

/** What the server says of itself. */
class ServerLog {
  lines = [];
  #firstWords = [];
  #wake = () => undefined;

  constructor(stdout) {
    this.url = new Promise((resolve) => {
      createInterface({ input: stdout }).on('line', (line) => {
        if (this.lines.length < 100) this.lines.push(line);
        const listening = /listens on (http:\S+?)(?:[,"\s]|$)/.exec(line);
        if (listening) resolve(listening[1]);
        if (!line.includes('first_word')) return;
        const { askedAt, heldMs, spokeAt } = JSON.parse(line);
        this.#firstWords.push({ askedAt, heldMs, spokeAt });
        this.#wake();
      });
    });
  }

  /** When the CLI of the next run was asked, and when it spoke: milliseconds since 1970. One run at a time. */
  async nextFirstWord() {
    if (this.#firstWords.length === 0) {
      const told = new Promise((resolve) => (this.#wake = resolve));
      await Promise.race([told, sleep(PATIENCE_MS, null, { ref: false })]);
      if (this.#firstWords.length === 0) throw new Error('The server has not told of a first word.');
    }
    return this.#firstWords.shift();
  }

  forgetFirstWords() {
    this.#firstWords = [];
  }
}
