import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

const require = createRequire(import.meta.url);
const manifest = require.resolve(
  `@anthropic-ai/claude-agent-sdk-${process.platform}-${process.arch}/package.json`,
);
const CLI = join(dirname(manifest), 'claude');

/** `claude -p`, as a script would spawn it. @returns milliseconds from the spawn to the first text and to the result */
export async function bareCli(messagesUrl) {
  const home = mkdtempSync(join(tmpdir(), 'bare-cli-'));
  const start = performance.now();
  const cli = spawn(
    CLI,
    ['-p', '--output-format', 'stream-json', '--include-partial-messages', '--verbose'],
    {
      cwd: home,
      stdio: ['pipe', 'pipe', 'inherit'],
      env: {
        PATH: '/usr/bin:/bin',
        HOME: home,
        CLAUDE_CONFIG_DIR: home,
        ANTHROPIC_BASE_URL: messagesUrl,
        ANTHROPIC_API_KEY: 'sk-ant-bench',
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
        DISABLE_AUTOUPDATER: '1',
      },
    },
  );
  const exited = new Promise((resolve) => cli.once('exit', resolve));
  cli.stdin.end('What is the answer?');
  let firstTextMs;
  let resultMs;
  for await (const line of createInterface({ input: cli.stdout })) {
    const { type, event } = JSON.parse(line);
    if (event?.delta?.type === 'text_delta') firstTextMs ??= performance.now() - start;
    if (type === 'result') resultMs = performance.now() - start;
  }
  await exited;
  rmSync(home, { recursive: true, force: true });
  return { firstTextMs, resultMs };
}
