import { execFileSync } from 'node:child_process';
import { mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EngineBench, NO_SANDBOX } from './test-support.js';

/** What holds without a sandbox; what only one can hold is in sandbox.int-spec.ts. */
let bench: EngineBench;
beforeAll(async () => {
  bench = await EngineBench.open({ sandbox: NO_SANDBOX });
  await mkdir(bench.workspace(), { recursive: true });
});
beforeEach(() => bench.api.reset());
afterAll(() => bench.close());

const bodies = () => JSON.stringify(bench.api.requests.map(({ body }) => body));
const toolsOffered = () =>
  (
    bench.api.requests.find(({ purpose }) => purpose === 'turn')?.body as { tools?: { name: string }[] }
  ).tools?.map(({ name }) => name) ?? [];

/** The CLI's own, offered with every list of tools; it does nothing. */
const PLACEHOLDER = 'DeferredToolPlaceholder';
const WRITE = '[[tool Write {"file_path":"note.txt","content":"hi"}]]';
const wasWritten = async (key: string) =>
  (await readFile(join(bench.workspace(key), 'note.txt'), 'utf8').catch(() => null)) === 'hi';

describe('file tools', () => {
  it('write into the workspace', async () => {
    const run = await bench.run({ prompt: WRITE, allowedTools: ['Write'] }, 'allowed');
    expect(run.all('tool_use')).toMatchObject([
      { name: 'Write', input: { file_path: 'note.txt', content: 'hi' } },
    ]);
    expect(run.all('tool_result')).toMatchObject([{ isError: false, truncated: false }]);
    expect(await wasWritten('allowed')).toBe(true);
    expect((await stat(bench.workspace('allowed'))).mode & 0o777).toBe(0o700);
  });

  it.each([
    ['Read', { file_path: '/etc/passwd' }],
    ['Read', { file_path: '../../../../../../etc/passwd' }],
    ['Read', { file_path: '~/.claude.json' }],
    ['Read', { file_path: '/proc/self/environ' }],
    ['Read', { file_path: 'link/passwd' }],
    ['Read', { file_path: ' /etc/passwd' }],
    ['Grep', { pattern: 'root', path: '/etc/passwd', output_mode: 'content' }],
    ['Grep', { pattern: 'root', path: 'link', output_mode: 'content' }],
    ['Grep', { pattern: 'root:', output_mode: 'content' }],
    ['Glob', { pattern: '/etc/pass*' }],
    ['Glob', { pattern: 'l*/passwd' }],
    ['Glob', { pattern: '**/passwd' }],
    ['Write', { file_path: '/tmp/claude-engine-escape', content: 'x' }],
    ['Write', { file_path: 'link/claude-engine-escape', content: 'x' }],
  ])('do not leave it, even if allowed: %s %j', async (name, input) => {
    await symlink('/etc', join(bench.workspace(), 'link')).catch(() => undefined);
    const prompt = `[[tool ${name} ${JSON.stringify(input)}]]`;
    const run = await bench.run({ prompt, allowedTools: ['Read', 'Write', 'Grep', 'Glob'] });
    const [result] = run.all('tool_result');
    expect(result?.content).toMatch(
      /Only files in the working directory|No files found|No matches found|does not read/,
    );
    expect(bodies()).not.toContain('root:x');
    expect(await run.ending()).toMatchObject({ kind: 'completed' });
    await expect(stat('/tmp/claude-engine-escape')).rejects.toThrow('ENOENT');
    await expect(stat('/etc/claude-engine-escape')).rejects.toThrow('ENOENT');
  });

  it('that were refused are told of at the end', async () => {
    const run = await bench.run({
      prompt: '[[tool Read {"file_path":"/etc/passwd"}]]',
      allowedTools: ['Read'],
    });
    expect((await run.ending()).permissionDenials).toEqual([
      { toolUseId: run.all('tool_use')[0]?.toolUseId, name: 'Read', input: { file_path: '/etc/passwd' } },
    ]);
  });
});

describe('what would ask', () => {
  it.each([
    ['deny', [], false],
    ['deny', ['Write'], true],
    ['acceptEdits', [], true],
    ['plan', [], false],
    ['plan', ['Write'], false],
  ] as const)(
    'in mode %s with %j allowed: a file is written: %s',
    async (permissionMode, allowedTools, isWritten) => {
      const key = `mode-${permissionMode}-${allowedTools.length}`;
      const run = await bench.run({ prompt: WRITE, permissionMode, allowedTools: [...allowedTools] }, key);
      expect(await run.ending()).toMatchObject({ kind: 'completed' });
      expect((await run.ending()).permissionDenials).toHaveLength(isWritten ? 0 : 1);
      expect(await wasWritten(key)).toBe(isWritten);
    },
  );
});

describe('tools', () => {
  it('that run programs are never offered, nor run', async () => {
    await bench.run({ prompt: 'hello' });
    expect(toolsOffered()).not.toEqual([]);
    for (const name of ['Bash', 'Task', 'Agent', 'WebFetch']) expect(toolsOffered()).not.toContain(name);
    const run = await bench.run({
      prompt: '[[tool Bash {"command":"id"}]]',
      allowedTools: ['Bash', 'Bash(id)'],
    });
    expect(run.all('tool_result')).toMatchObject([{ isError: true }]);
  });

  it('that run programs, asked for by name, are no reason to answer without them', async () => {
    const run = await bench.run({ tools: ['Read', 'Bash'] });
    expect(await run.ending()).toMatchObject({
      kind: 'failed',
      error: {
        code: 'engine_unavailable',
        detail: expect.stringContaining('no Bash') as string,
        retryable: false,
      },
    });
    expect(bench.api.requests).toEqual([]);
  });

  it('that are not supported are never offered, nor run', async () => {
    const run = await bench.run({
      prompt: '[[tool WebFetch {"url":"http://127.0.0.1","prompt":"x"}]]',
      tools: ['Read', 'Read,Bash', 'WebFetch'],
      allowedTools: ['WebFetch'],
    });
    expect(toolsOffered()).toEqual([PLACEHOLDER, 'Read']);
    expect(run.all('tool_result')).toMatchObject([{ isError: true }]);
  });

  it('can be none at all', async () => {
    await bench.run({ tools: [] });
    expect(toolsOffered()).toEqual([]);
  });

  it('can be taken away', async () => {
    await bench.run({ tools: ['Read', 'Write'], disallowedTools: ['Write'] });
    expect(toolsOffered()).toEqual([PLACEHOLDER, 'Read']);
  });
});

describe('what lies in the workspace or above it', () => {
  it('configures nothing, runs nothing, and is not sent', async () => {
    const workspace = bench.workspace('planted');
    const marker = join(bench.directory, 'was-run');
    await mkdir(join(workspace, '.claude'), { recursive: true });
    const hooks = { SessionStart: [{ hooks: [{ type: 'command', command: `/bin/touch ${marker}` }] }] };
    const server = { command: '/bin/touch', args: [marker] };
    await writeFile(
      join(workspace, '.claude', 'settings.json'),
      JSON.stringify({ hooks, env: { A: 'CANARY' } }),
    );
    await writeFile(join(workspace, '.mcp.json'), JSON.stringify({ mcpServers: { server } }));
    for (const folder of [workspace, bench.directory]) {
      await writeFile(join(folder, 'CLAUDE.md'), 'CANARY');
      await writeFile(join(folder, 'AGENTS.md'), 'CANARY');
    }
    await bench.run({ prompt: '[[tool Glob {"pattern":"*"}]]' }, 'planted');
    expect(bodies()).not.toContain('CANARY');
    await expect(stat(marker)).rejects.toThrow('ENOENT');
  });

  it('if it is a Git repository, is not asked: nothing of it is sent and none of its configuration runs', async () => {
    const workspace = bench.workspace('repository');
    const marker = join(bench.directory, 'git-ran');
    await mkdir(workspace, { recursive: true });
    const git = (...args: string[]) => execFileSync('git', args, { cwd: workspace });
    git('init', '-q', '-b', 'canary-branch');
    const author = ['-c', 'user.name=x', '-c', 'user.email=x@example.com'];
    git(...author, 'commit', '-q', '--allow-empty', '-m', 'CANARY-COMMIT');
    git('config', 'user.name', 'CANARY-USER');
    git('config', 'filter.evil.clean', `/bin/touch ${marker}`);
    await writeFile(join(workspace, '.gitattributes'), '* filter=evil\n');
    await bench.run({ prompt: 'hello' }, 'repository');
    expect(bodies()).not.toMatch(/canary/i);
    await expect(stat(marker)).rejects.toThrow('ENOENT');
  });
});
