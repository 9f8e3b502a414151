import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { type MessagesApi, startMessagesApi } from './index.js';

const CLI_PACKAGE = `@anthropic-ai/claude-agent-sdk-${process.platform}-${process.arch}/package.json`;
const CLI = join(dirname(createRequire(__filename).resolve(CLI_PACKAGE)), 'claude');

jest.setTimeout(120_000);

let api: MessagesApi;
let home: string;
let cli: KeptCli;

beforeEach(async () => {
  api = await startMessagesApi();
  home = await mkdtemp(join(tmpdir(), 'conversation-'));
  cli = keepCli();
});
afterEach(async () => {
  await cli.end();
  await api.close();
  await rm(home, { recursive: true, force: true, maxRetries: 5 });
});

interface KeptCli {
  say(prompt: string): void;
  control(request: { subtype: string; model?: string }): void;
  /** The next line of its output of that type. */
  next(type: 'result' | 'control_response'): Promise<Record<string, unknown>>;
  end(): Promise<void>;
}

/** The real CLI, kept open for several turns. */
function keepCli(): KeptCli {
  const flags = ['-p', '--verbose', '--input-format=stream-json', '--output-format=stream-json'];
  const child = spawn(CLI, flags, {
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
  const closed = new Promise<void>((resolve, reject) => {
    child.on('close', () => resolve()).on('error', reject);
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const write = (line: object) => child.stdin.write(`${JSON.stringify(line)}\n`);
  return {
    say: (content) =>
      write({ type: 'user', message: { role: 'user', content }, parent_tool_use_id: null, session_id: '' }),
    control: (request) => write({ type: 'control_request', request_id: request.subtype, request }),
    async next(type) {
      for (;;) {
        const read = await lines.next();
        if (read.done) throw new Error(`The CLI ended before a line of type ${type}.`);
        const line = JSON.parse(read.value) as Record<string, unknown>;
        if (line.type === type) return line;
      }
    },
    end: () => {
      child.kill('SIGKILL');
      return closed;
    },
  };
}

const promptsOf = () => api.requests.map(({ prompt }) => prompt);

describe('the prompt, as the real CLI sends it', () => {
  it('is told from one before it that failed', async () => {
    cli.say('[[status 403]]');
    expect(await cli.next('result')).toMatchObject({ is_error: true });
    cli.say('[[text after the failure]]');
    expect(await cli.next('result')).toMatchObject({ is_error: false, result: 'after the failure' });
    expect(promptsOf().at(-1)).toBe('[[text after the failure]]');
  });

  it('is told from one before it that was interrupted', async () => {
    cli.say('[[hang]]');
    await api.waitForRequest(({ prompt }) => prompt === '[[hang]]');
    cli.control({ subtype: 'interrupt' });
    await cli.next('result');
    await api.waitForRequest(({ outcome }) => outcome === 'client_gone');
    expect(api.requests).toHaveLength(1);
    cli.say('[[text after the interrupt]]');
    expect(await cli.next('result')).toMatchObject({ result: 'after the interrupt' });
  });

  it('is told from a command and a change of model before it, which are nobody’s prompts', async () => {
    cli.say('[[text one]]');
    await cli.next('result');
    cli.control({ subtype: 'set_model', model: 'claude-sonnet-4-5' });
    await cli.next('control_response');
    cli.say('/clear');
    await cli.next('result');
    cli.say('[[text two]]');
    expect(await cli.next('result')).toMatchObject({ result: 'two' });
    expect(api.requests.map(({ purpose, prompt }) => [purpose, prompt])).toEqual([
      ['turn', '[[text one]]'],
      ['probe', null],
      ['turn', '[[text two]]'],
    ]);
  });

  it('is not taken from the CLI’s own words when it compacts the conversation', async () => {
    cli.say('[[text one]]');
    await cli.next('result');
    cli.say('/compact');
    await cli.next('result');
    cli.say('[[text two]]');
    expect(await cli.next('result')).toMatchObject({ result: 'two' });
    expect(promptsOf().filter((prompt) => prompt !== null)).toEqual(['[[text one]]', '[[text two]]']);
  });
});
