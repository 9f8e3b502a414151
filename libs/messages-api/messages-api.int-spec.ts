import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type MessagesApi, startMessagesApi } from './index.js';

const CLI_PACKAGE = `@anthropic-ai/claude-agent-sdk-${process.platform}-${process.arch}/package.json`;
const CLI = join(dirname(createRequire(__filename).resolve(CLI_PACKAGE)), 'claude');

jest.setTimeout(120_000);

let api: MessagesApi;
let home: string;

beforeAll(async () => {
  api = await startMessagesApi({ apiKey: 'sk-ant-test' });
});
beforeEach(async () => {
  api.reset();
  home = await mkdtemp(join(tmpdir(), 'messages-api-'));
});
afterEach(() => rm(home, { recursive: true, force: true, maxRetries: 5 }));
afterAll(() => api.close());

interface Run {
  code: number | null;
  out: string;
}

/** Runs the real CLI with a prompt on its stdin. */
async function claude(prompt: string, ...flags: string[]): Promise<Run> {
  const cli = spawn(CLI, ['-p', ...flags], {
    cwd: home,
    stdio: ['pipe', 'pipe', 'inherit'],
    env: {
      PATH: process.env.PATH,
      HOME: home,
      CLAUDE_CONFIG_DIR: home,
      ANTHROPIC_BASE_URL: api.url,
      ANTHROPIC_API_KEY: 'sk-ant-test',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
      DISABLE_AUTOUPDATER: '1',
    },
  });
  const exited = new Promise<number | null>((resolve, reject) =>
    cli.on('close', resolve).on('error', reject),
  );
  cli.stdin.end(prompt);
  const [out, code] = await Promise.all([text(cli.stdout), exited]);
  return { code, out };
}

describe('the real Claude CLI', () => {
  it('prints the text that the prompt asks for', async () => {
    expect(await claude('Say hello.\n[[text Hello there]]')).toEqual({ code: 0, out: 'Hello there\n' });
    expect(api.requests.filter(({ purpose }) => purpose === 'turn')).toMatchObject([
      { prompt: 'Say hello.\n[[text Hello there]]', apiKey: 'sk-ant-test', outcome: 'answered' },
    ]);
  });

  it('hands over the prompt byte for byte', async () => {
    const prompt = '  <system-reminder>mine</system-reminder>\t"quoted" \\n 😀\n\n[[echo]]\n';
    await claude(prompt);
    expect(api.requests.find(({ purpose }) => purpose === 'turn')?.prompt).toBe(prompt);
  });

  it('writes the file that a tool call asks for, and gets told the result', async () => {
    const write = `[[tool Write {"file_path":"${join(home, 'out.txt')}","content":"written"}]]`;
    const { code, out } = await claude(write, '--permission-mode=acceptEdits', '--allowedTools=Write');
    expect(out).toMatch(/^The tool said: .*out\.txt/);
    expect(code).toBe(0);
    expect(await readFile(join(home, 'out.txt'), 'utf8')).toBe('written');
    expect(api.requests.filter(({ prompt }) => prompt === write)).toHaveLength(2);
  });

  it('tries again after an overload, and reports thinking, deltas and usage', async () => {
    const prompt = '[[status 529 times=1]]\n[[think Hm]]\n[[deltas 5 1]]\n[[usage in=10 out=5]]';
    const { out } = await claude(prompt, '--output-format=json');
    expect(JSON.parse(out)).toMatchObject({
      is_error: false,
      result: 'word-1 word-2 word-3 word-4 word-5',
      usage: { input_tokens: 10, output_tokens: 5 },
    });
    expect(api.requests.map(({ outcome }) => outcome)).toEqual(['failed', 'answered']);
  });
});
