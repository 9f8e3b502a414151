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

/** A home for bare CLIs: what they have said there can be resumed. */
export function makeHome() {
  const home = mkdtempSync(join(tmpdir(), 'bare-cli-'));
  return { home, remove: () => rmSync(home, { recursive: true, force: true }) };
}

/**
 * `claude -p`, as a script would spawn it.
 * @param resume the conversation that it goes on with, if any
 * @param onSpawn told its pid
 * @returns milliseconds from the spawn to the first text, to the result and to its exit, and its conversation
 */
export async function bareCli(messagesUrl, home, { resume, onSpawn } = {}) {
  const start = performance.now();
  const args = ['-p', '--output-format', 'stream-json', '--include-partial-messages', '--verbose'];
  const cli = spawn(CLI, resume === undefined ? args : [...args, '--resume', resume], {
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
  });
  onSpawn?.(cli.pid);
  const exited = new Promise((resolve) => cli.once('exit', resolve));
  cli.stdin.end('What is the answer?');
  let firstTextMs;
  let resultMs;
  let conversation;
  for await (const line of createInterface({ input: cli.stdout })) {
    const { type, event, session_id: id } = JSON.parse(line);
    if (event?.delta?.type === 'text_delta') firstTextMs ??= performance.now() - start;
    if (type !== 'result') continue;
    resultMs = performance.now() - start;
    conversation = id;
  }
  await exited;
  return { firstTextMs, resultMs, exitMs: performance.now() - start, conversation };
}
