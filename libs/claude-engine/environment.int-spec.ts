import { readFile } from 'node:fs/promises';
import { type SandboxOptions } from './index.js';
import { processesOf } from './process-table.js';
import { EngineBench, KEY, NO_SANDBOX, SANDBOX } from './test-support.js';

const EVERYWHERE = [
  'ANTHROPIC_API_KEY',
  'ANTHROPIC_BASE_URL',
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
    process.env.ENGINE_TEST_CANARY = 'canary-4711';
    const run = bench.begin({
      prompt: 'canary-prompt\n[[hang]]',
      systemPrompt: 'canary-system',
      appendSystemPrompt: 'canary-append',
    });
    await run.until('started');
    delete process.env.ENGINE_TEST_CANARY;
    const [launch] = bench.engine.liveLaunches();
    const pids = await processesOf({ id: launch!.launchId, groupId: launch!.pid });
    const read = (file: string) => Promise.all(pids.map((pid) => readFile(`/proc/${pid}/${file}`, 'latin1')));
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
