import { chmod, mkdtemp, readdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CliEngineOptions, RunAbort } from './index.js';
import { type OutputLimits } from './output-gate.js';
import { processesOf } from './process-table.js';
import { type BenchRun, EngineBench, eventually, NO_SANDBOX } from './test-support.js';

const benches: EngineBench[] = [];
async function open(options: Partial<CliEngineOptions> = {}): Promise<EngineBench> {
  const bench = await EngineBench.open(options);
  benches.push(bench);
  return bench;
}
afterEach(async () => {
  await Promise.all(benches.splice(0).map((bench) => bench.close()));
});

/** Ends a run, or waits until it ends by itself; checks that `ended` came in time and nothing of the launch was left. */
async function expectGoneAtEnd(bench: EngineBench, run: BenchRun, end?: () => void): Promise<void> {
  const launches = bench.engine.liveLaunches();
  expect(launches).toHaveLength(1);
  const began = performance.now();
  end?.();
  await run.ending();
  expect(performance.now() - began).toBeLessThan(end ? 5000 : 30_000);
  for (const { launchId, pid } of launches) {
    expect(await processesOf({ id: launchId, groupId: pid })).toEqual([]);
  }
  await bench.allGone();
  expect(await readdir(join(bench.directory, 'launches'))).toEqual([]);
}

/** A stand-in for the CLI: a shell script. */
async function scriptedCli(bench: EngineBench, script: string): Promise<string> {
  const path = join(bench.directory, 'scripted-cli');
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return path;
}

describe('a run that takes too long', () => {
  it('fails with timeout, what it used until then told', async () => {
    const bench = await open();
    const run = bench.begin({ prompt: '[[deltas 1000 50]]', timeoutMs: 12_000 });
    await run.until('text');
    await expectGoneAtEnd(bench, run);
    expect(await run.ending()).toMatchObject({
      kind: 'failed',
      error: { code: 'timeout', retryable: false },
      usage: { inputTokens: expect.any(Number) as number },
      costUsd: expect.any(Number) as number,
    });
  });

  it('fails with timeout though the CLI would go on trying for minutes', async () => {
    const bench = await open({ apiMaxRetries: 10 });
    const run = bench.begin({ prompt: '[[cut 3]]\n[[deltas 6 50]]', timeoutMs: 20_000 });
    await run.until('retrying');
    await run.until('retrying');
    await expectGoneAtEnd(bench, run);
    expect(await run.ending()).toMatchObject({ kind: 'failed', error: { code: 'timeout' } });
  });

  it('fails with stalled when nothing at all is heard', async () => {
    const bench = await open({ stallMs: 5000 });
    const run = await bench.run({ prompt: '[[hang]]' });
    expect(await run.ending()).toMatchObject({ kind: 'failed', error: { code: 'stalled', retryable: true } });
  });

  it('is not stalled while the CLI waits to try again', async () => {
    const bench = await open({ stallMs: 10_000 });
    const run = await bench.run({ prompt: '[[status 429 retry-after=12 times=1]]\n[[text At last]]' });
    expect(await run.ending()).toMatchObject({ kind: 'completed', result: 'At last' });
  });
});

describe('a cancelled run', () => {
  it('ends within 5 s while it speaks, and tells what it used', async () => {
    const bench = await open();
    const run = bench.begin({ prompt: '[[deltas 1000 50]]' });
    await run.until('text');
    await expectGoneAtEnd(bench, run, () => run.abort(new RunAbort('cancelled')));
    const ending = await run.ending();
    expect(ending).toMatchObject({
      kind: 'cancelled',
      stopReason: 'interrupted',
      numTurns: expect.any(Number) as number,
    });
    expect(ending.usage?.inputTokens).toBeGreaterThan(0);
    expect(ending.costUsd).toBeGreaterThan(0);
  });

  it('ends within 5 s before the first byte of an answer', async () => {
    const bench = await open();
    const run = bench.begin({ prompt: '[[hang]]' });
    await run.until('started');
    await bench.api.waitForRequest(({ purpose }) => purpose === 'turn');
    await expectGoneAtEnd(bench, run, () => run.abort());
    expect(await run.ending()).toMatchObject({ kind: 'cancelled' });
  });

  it('ends while its CLI is still coming up', async () => {
    const bench = await open();
    const run = bench.begin({});
    const first = run.iterator.next();
    await eventually(() => bench.pids().length === 1);
    run.abort();
    expect(await first).toMatchObject({
      value: { type: 'ended', ending: { kind: 'cancelled', usage: null } },
    });
    await bench.allGone();
  });

  it('is never started if it was cancelled before', async () => {
    const bench = await open();
    const run = bench.begin({});
    run.abort();
    expect(await run.ending()).toMatchObject({ kind: 'cancelled', numTurns: null });
    expect(bench.notices).toEqual([]);
    expect(await readdir(bench.directory)).toEqual([]);
  });

  it.each([
    ['timeout', { kind: 'failed', error: { code: 'timeout' } }],
    ['shutdown', { kind: 'failed', error: { code: 'engine_unavailable', retryable: true } }],
  ] as const)('by RunAbort(%s) says so', async (kind, ending) => {
    const bench = await open();
    const run = bench.begin({ prompt: '[[hang]]' });
    await run.until('started');
    run.abort(new RunAbort(kind));
    expect(await run.ending()).toMatchObject(ending);
  });
});

describe('a run whose worker has lost its lease', () => {
  it('is killed at once, not asked', async () => {
    const bench = await open({ ladder: { interruptMs: 60_000, termMs: 60_000 } });
    const run = bench.begin({ prompt: '[[deltas 1000 50]]' });
    await run.until('text');
    await expectGoneAtEnd(bench, run, () => run.abort(new RunAbort('fenced')));
    expect(await run.ending()).toMatchObject({
      kind: 'failed',
      error: { code: 'engine_unavailable', retryable: true },
      stopReason: null,
    });
  });

  it.each(['cancelled', 'shutdown'] as const)(
    'is killed at once, though it was being asked: %s',
    async (kind) => {
      const bench = await open({ ladder: { interruptMs: 600_000, termMs: 600_000 } });
      const run = bench.begin({ prompt: '[[deltas 1000 50]]' });
      await run.until('text');
      // It hears nothing of what it is asked.
      const [launch] = bench.engine.liveLaunches();
      for (const pid of await processesOf({ id: launch!.launchId, groupId: launch!.pid }))
        process.kill(pid, 'SIGSTOP');
      await expectGoneAtEnd(bench, run, () => {
        run.abort(new RunAbort(kind));
        run.kill();
      });
      expect((await run.ending()).kind).toBe(kind === 'cancelled' ? 'cancelled' : 'failed');
    },
  );

  it('is killed though it ignores every request to leave', async () => {
    const home = await open();
    const cliPath = await scriptedCli(home, 'trap "" TERM INT; while :; do read line || /bin/sleep 1; done');
    const bench = await open({ cliPath, ladder: { interruptMs: 60_000, termMs: 60_000 } });
    const run = bench.begin({});
    const first = run.iterator.next();
    await eventually(() => bench.pids().length === 1);
    run.abort(new RunAbort('fenced'));
    expect(await first).toMatchObject({ value: { type: 'ended', ending: { kind: 'failed' } } });
    await bench.allGone();
  });
});

describe('a reader that stops reading', () => {
  it('ends the run', async () => {
    const bench = await open();
    const run = bench.begin({ prompt: '[[deltas 1000 50]]' });
    await run.until('text');
    const [launch] = bench.engine.liveLaunches();
    expect(await run.iterator.return?.()).toEqual({ done: true, value: undefined });
    expect(await processesOf({ id: launch!.launchId, groupId: launch!.pid })).toEqual([]);
    expect(bench.engine.liveLaunches()).toEqual([]);
    expect(await run.iterator.next()).toEqual({ done: true, value: undefined });
  });

  it('ends it while it waits for the next event, too', async () => {
    const bench = await open();
    const run = bench.begin({ prompt: '[[hang]]' });
    await run.until('started');
    const pending = run.iterator.next();
    await run.iterator.return?.();
    expect(await pending).toMatchObject({ done: true });
    expect(bench.engine.liveLaunches()).toEqual([]);
  });

  it('does not wait for a CLI that has answered', async () => {
    const bench = await open();
    for await (const event of bench.begin({}).iterator) {
      if (event.type === 'ended') break;
    }
    expect(bench.engine.liveLaunches()).toHaveLength(1);
    await bench.allGone();
  });
});

describe('an engine that closes', () => {
  it('ends its runs, and starts no more', async () => {
    const bench = await open();
    const run = bench.begin({ prompt: '[[hang]]' });
    await run.until('started');
    await bench.engine.close();
    expect(bench.engine.liveLaunches()).toEqual([]);
    const unavailable = { kind: 'failed', error: { code: 'engine_unavailable', retryable: true } };
    expect(await run.ending()).toMatchObject(unavailable);
    expect(await (await bench.run({})).ending()).toMatchObject(unavailable);
  });
});

describe('a CLI that does not behave', () => {
  it('is killed, its children that left its process group included', async () => {
    const home = await open();
    const cliPath = await scriptedCli(
      home,
      `trap '' TERM INT
/usr/bin/setsid /bin/sh -c "trap '' TERM; while :; do /usr/bin/sleep 1; done" &
while :; do /usr/bin/sleep 1; done`,
    );
    const bench = await open({ cliPath, ladder: { interruptMs: 500, termMs: 500 } });
    const run = bench.begin({});
    const first = run.iterator.next();
    await eventually(async () => {
      const [launch] = bench.engine.liveLaunches();
      return (await processesOf({ id: launch?.launchId ?? '-', groupId: null })).length >= 4;
    });
    const launches = bench.engine.liveLaunches();
    run.abort();
    expect(await first).toMatchObject({ value: { type: 'ended', ending: { kind: 'cancelled' } } });
    expect(await processesOf({ id: launches[0]!.launchId, groupId: launches[0]!.pid })).toEqual([]);
  });

  it('and leaves at once is unavailable; its stderr is for the operator, without the key', async () => {
    const home = await open();
    const cliPath = await scriptedCli(home, 'echo "no such thing: $ANTHROPIC_API_KEY $HOME" >&2; exit 3');
    const bench = await open({ cliPath, anthropic: { apiKey: 'sk-ant-secret' } });
    const ending = await (await bench.run({})).ending();
    expect(ending).toMatchObject({
      kind: 'failed',
      error: { code: 'engine_unavailable', detail: 'The Claude CLI could not be started.', retryable: true },
    });
    expect(bench.notices).toContainEqual(
      expect.objectContaining({
        kind: 'cli_died',
        exitCode: 3,
        stderr: expect.stringContaining('[key]') as string,
      }),
    );
    expect(JSON.stringify(bench.notices)).not.toContain('sk-ant-secret');
  });

  it('and is not there is unavailable', async () => {
    const bench = await open({ cliPath: '/nonexistent/claude' });
    const ending = await (await bench.run({})).ending();
    expect(ending).toMatchObject({ kind: 'failed', error: { code: 'engine_unavailable' }, usage: null });
    expect(JSON.stringify(ending)).not.toContain('/nonexistent');
    expect(await bench.engine.probe()).toMatchObject({ isAvailable: false, version: null });
  });

  it('and cannot be run is unavailable', async () => {
    const home = await open();
    const cliPath = join(home.directory, 'no-program');
    await writeFile(cliPath, 'no program', { mode: 0o755 });
    const bench = await open({ cliPath });
    expect(await (await bench.run({})).ending()).toMatchObject({ error: { code: 'engine_unavailable' } });
  });

  it('and dies in the middle is an internal failure', async () => {
    const bench = await open();
    const run = bench.begin({ prompt: '[[deltas 1000 50]]' });
    await run.until('text');
    process.kill(bench.pids()[0]!, 'SIGKILL');
    expect(await run.ending()).toMatchObject({
      kind: 'failed',
      error: { code: 'internal', detail: 'The Claude CLI failed.', retryable: false },
      usage: { inputTokens: expect.any(Number) as number },
      costUsd: null,
    });
  });
});

describe('the real CLI', () => {
  it('tells its version', async () => {
    const bench = await open();
    expect(await bench.engine.probe()).toMatchObject({
      isAvailable: true,
      hasFallback: false,
      breaker: 'closed',
      tools: expect.arrayContaining(['Read', 'Write']) as string[],
      version: expect.stringMatching(/^\d+\.\d+\.\d+$/) as string,
      path: expect.stringContaining('claude') as string,
      containment: process.platform === 'linux' ? 'bwrap' : 'file-tools',
      detail: null,
    });
  });
});

it.each(['', '.', '..', 'a/b', '../a', '.hidden', 'a b', 'x'.repeat(200)])(
  'a workspace key that is no plain name is a bug: %j',
  async (key) => {
    const bench = await open();
    expect(() => bench.begin({}, key)).toThrow('Not a plain name');
  },
);

describe('a CLI that says more than anybody takes in', () => {
  it('is held up while nobody reads, and ended when it is more than is kept of a run', async () => {
    const directory = await realpath(await mkdtemp(join(tmpdir(), 'engine-')));
    const cliPath = join(directory, 'scripted-cli');
    const line = JSON.stringify({ type: 'noise', text: 'x'.repeat(400) });
    await writeFile(cliPath, `#!/bin/sh\nexec /usr/bin/yes '${line}'\n`);
    await chmod(cliPath, 0o755);
    const bench = await open({
      ...{ directory, cliPath, sandbox: NO_SANDBOX },
      outputLimits: { maxEvents: 20_000 },
    });
    const run = bench.begin({});
    await run.until('raw');
    const [pid] = bench.pids();
    const written = async () =>
      Number(/^wchar: (\d+)$/m.exec(await readFile(`/proc/${pid}/io`, 'utf8'))?.[1]);
    let before = -1;
    await eventually(async () => {
      const isStill = before === (await written());
      before = await written();
      return isStill;
    });
    expect(before).toBeLessThan(3 * 1024 * 1024);
    await expectGoneAtEnd(bench, run);
    expect(await run.ending()).toMatchObject({
      ...{ kind: 'failed', error: { code: 'output_too_large', retryable: false } },
    });
    expect(run.all('raw')).toHaveLength(20_000);
  });

  it.each<[string, Partial<OutputLimits>, object]>([
    ['in all', { maxBytes: 1024 * 1024 }, { type: 'keep_alive' }],
    ['in one line', { maxLineBytes: 1024 * 1024 }, { type: 'x'.repeat(100_000) }],
  ])('is ended when it has said too much %s, though no event came of it', async (_, outputLimits, line) => {
    const directory = await realpath(await mkdtemp(join(tmpdir(), 'engine-')));
    const cliPath = join(directory, 'scripted-cli');
    const script = JSON.stringify(line);
    const end = 'maxLineBytes' in outputLimits ? '' : '\\n';
    await writeFile(cliPath, `#!/bin/sh\nwhile printf '%s${end}' '${script}'; do :; done\n`);
    await chmod(cliPath, 0o755);
    const bench = await open({ directory, cliPath, sandbox: NO_SANDBOX, outputLimits });
    const ending = await (await bench.run({})).ending();
    expect(ending).toMatchObject({ kind: 'failed', error: { code: 'output_too_large' } });
  });
});
