import { transformFile } from '@swc/core';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { DirectoryInUseError, lockDirectory, startEmbeddedPostgres, startEmbeddedRedis } from './index.js';
import { identify } from './os-process.js';

jest.setTimeout(180_000);

const cacheDirectory = resolve('.cache/distribution');

/** Calls the named export for each message, answers how often it succeeded, and holds what it got till it is killed. */
const STARTER = `
import * as library from './index.js';
process.on('message', async ({ call, argument, times }) => {
  const calls = Array.from({ length: times }, () => library[call](argument));
  const results = await Promise.allSettled(calls);
  const won = results.filter(({ status }) => status === 'fulfilled').map(({ value }) => value);
  const errors = results.filter(({ status }) => status === 'rejected').map(({ reason }) => reason.name);
  process.send({ succeeded: won.length, pid: won[0]?.pid, errors });
});
process.send('ready');
`;

interface StarterAnswer {
  succeeded: number;
  pid?: number;
  errors: string[];
}

/** Another process needs JavaScript, and this library is TypeScript until it is built. */
async function compileLibrary(target: string): Promise<string> {
  await mkdir(target, { recursive: true });
  for (const name of await readdir(__dirname)) {
    if (!name.endsWith('.ts') || name.endsWith('spec.ts')) continue;
    const { code } = await transformFile(join(__dirname, name), {
      swcrc: false,
      module: { type: 'es6' },
      jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
    });
    await writeFile(join(target, basename(name, '.ts') + '.js'), code);
  }
  await writeFile(join(target, 'starter.mjs'), STARTER);
  return join(target, 'starter.mjs');
}

describe('when the process that started it is killed -9', () => {
  const compiled = resolve(`.cache/embedded-services-${process.pid}`);
  const children = new Set<ChildProcess>();
  let script: string;
  let directory: string;

  const forkStarter = async () => {
    const child = fork(script, { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    children.add(child);
    await once(child, 'message');
    return child;
  };
  const ask = async (child: ChildProcess, call: string, argument: unknown, times = 1) => {
    child.send({ call, argument, times });
    const [answer] = (await once(child, 'message')) as [StarterAnswer];
    return answer;
  };
  const kill = async (child: ChildProcess) => {
    children.delete(child);
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  };

  beforeAll(async () => {
    script = await compileLibrary(compiled);
  });

  afterAll(async () => {
    await rm(compiled, { recursive: true, force: true });
  });

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'killed-starter-'));
  });

  afterEach(async () => {
    for (const child of children) await kill(child);
    await rm(directory, { recursive: true, force: true });
  });

  it.each([
    ['PostgreSQL', 'startEmbeddedPostgres', startEmbeddedPostgres],
    ['Redis', 'startEmbeddedRedis', startEmbeddedRedis],
  ] as const)(
    '%s is taken over by the next start, and its stop leaves no process',
    async (_, call, start) => {
      const options = { directory, durable: false, cacheDirectory };
      const starter = await forkStarter();
      const { pid } = await ask(starter, call, options);
      await kill(starter);
      const service = await start(options);
      const isStillThere = (await identify(service.pid)) !== undefined;
      await service.stop();

      expect(service).toMatchObject({ adopted: true, pid });
      expect(isStillThere).toBe(true);
      expect(await identify(service.pid)).toBeUndefined();
    },
  );

  it('a directory can be locked again, and not before', async () => {
    const owner = await forkStarter();
    await ask(owner, 'lockDirectory', directory);
    const refusal: unknown = await lockDirectory(directory).catch((error: unknown) => error);
    await kill(owner);

    expect(refusal).toBeInstanceOf(DirectoryInUseError);
    expect(refusal).toMatchObject({ pid: owner.pid });
    await expect(lockDirectory(directory)).resolves.toBeDefined();
  });

  it('exactly one of 20 contenders in 5 processes takes its lock over, every time', async () => {
    const starters = await Promise.all(Array.from({ length: 5 }, forkStarter));
    for (let round = 1; round <= 10; round += 1) {
      const contested = join(directory, String(round));
      await mkdir(contested);
      await writeFile(join(contested, 'lock'), `{"left by":"a killed process","in round":${round}}`);
      const answers = await Promise.all(starters.map((child) => ask(child, 'lockDirectory', contested, 4)));
      const errors = answers.flatMap((answer) => answer.errors);

      expect(answers.reduce((sum, { succeeded }) => sum + succeeded, 0)).toBe(1);
      expect(errors).toEqual(Array.from({ length: 19 }, () => 'DirectoryInUseError'));
    }
  });
});
