import { mkdtemp, readFile, realpath, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundledCliPath } from './cli-path.js';
import { type SandboxOptions } from './index.js';
import { processesOf } from './process-table.js';
import { EngineBench, KEY, NO_SANDBOX, SANDBOX } from './test-support.js';

const EVERYWHERE = [
  'ANTHROPIC_API_KEY',
  'ANTHROPIC_BASE_URL',
  'BUN_JSC_useDFGJIT',
  'CLAUDE_AGENT_SDK_VERSION',
  'CLAUDE_CODE_DISABLE_AUTO_MEMORY',
  'CLAUDE_CODE_DISABLE_BACKGROUND_TASKS',
  'CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS',
  'CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC',
  'CLAUDE_CODE_ENTRYPOINT',
  'CLAUDE_CODE_MAX_RETRIES',
  'CLAUDE_CODE_SDK_READS_SESSION_STATE',
  'CLAUDE_CONFIG_DIR',
  'CLAUDE_RUNNER_LAUNCH',
  'DISABLE_AUTOUPDATER',
  'HOME',
  'LANG',
  'PATH',
  'TMPDIR',
];

/** Reads a file of each process of the one launch, by its name in `/proc`. */
async function readerOf({ engine }: EngineBench): Promise<(file: string) => Promise<string[]>> {
  const [launch] = engine.liveLaunches();
  const pids = await processesOf({ id: launch!.launchId, groupId: launch!.pid });
  return (file) => Promise.all(pids.map((pid) => readFile(`/proc/${pid}/${file}`, 'latin1')));
}

describe.each<{ name: string; sandbox: SandboxOptions; more: string[] }>([
  { name: 'without a sandbox', sandbox: NO_SANDBOX, more: ['CLAUDE_CODE_TMPDIR'] },
  {
    name: 'in a sandbox',
    sandbox: SANDBOX,
    more: ['ANTHROPIC_UNIX_SOCKET', 'CLAUDE_CODE_SHELL_PREFIX', 'PWD'],
  },
])('a CLI $name', ({ sandbox, more }) => {
  it('knows nothing of our environment, holds no key, and shows its prompt to nobody', async () => {
    const bench = await EngineBench.open({ sandbox });
    // The first does not wait for long to be told how the CLI can be started.
    await bench.run({ prompt: '[[text Hi]]' });
    await bench.allGone();
    process.env.ENGINE_TEST_CANARY = 'canary-4711';
    const run = bench.begin({
      prompt: 'canary-prompt\n[[hang]]',
      systemPrompt: 'canary-system',
      appendSystemPrompt: 'canary-append',
    });
    await run.until('started');
    delete process.env.ENGINE_TEST_CANARY;
    const read = await readerOf(bench);
    const [environments, commandLines] = [await read('environ'), await read('cmdline')];
    await run.iterator.return?.();
    await bench.close();
    expect(commandLines.join()).toContain('stream-json');
    for (const told of [...environments, ...commandLines]) {
      expect(told).not.toContain('canary');
      expect(told).not.toContain(KEY);
    }
    const names = environments
      .at(-1)!
      .split('\0')
      .map((variable) => variable.split('=')[0]);
    expect(names.filter((name) => name).toSorted()).toEqual([...EVERYWHERE, ...more].toSorted());
  });
});

it('What tools start does not get what is for the CLI alone', async () => {
  const bench = await EngineBench.open({ sandbox: SANDBOX });
  await bench.run({ prompt: '[[text Hi]]' });
  await bench.allGone();
  const hanging = bench.begin({ prompt: '[[hang]]' });
  await hanging.until('started');
  expect(String(await (await readerOf(bench))('environ'))).toContain('BUN_JSC_useDFGJIT=0');
  await hanging.iterator.return?.();
  const run = await bench.run({ prompt: '[[tool Bash {"command":"env"}]]', allowedTools: ['Bash'] });
  const [result] = run.all('tool_result');
  expect(result?.content).toContain('CLAUDE_RUNNER_LAUNCH=');
  expect(result?.content).not.toContain('BUN_');
  await bench.close();
});

it('A CLI that does not start as it is tuned is started as it comes', async () => {
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'engine-')));
  const cliPath = join(directory, 'picky-claude');
  const refusal = 'if [ -n "$BUN_JSC_useDFGJIT" ]; then exit 1; fi';
  await writeFile(cliPath, `#!/bin/sh\n${refusal}\nexec '${bundledCliPath()}' "$@"\n`, { mode: 0o755 });
  const bench = await EngineBench.open({ directory, sandbox: NO_SANDBOX, cliPath });
  expect(await bench.engine.probe()).toMatchObject({ isAvailable: true });
  const run = bench.begin({ prompt: '[[text Hi]]\n[[hang]]' });
  await run.until('started');
  expect(String(await (await readerOf(bench))('environ'))).not.toContain('BUN_');
  await run.iterator.return?.();
  expect(await (await bench.run({ prompt: '[[text Hi]]' })).ending()).toMatchObject({ kind: 'completed' });
  await bench.close();
});
