import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { type AskPermission, type PermissionQuestion } from './index.js';
import { BenchRun, EngineBench, NO_SANDBOX } from './test-support.js';

const write = (path: string) => `[[tool Write ${JSON.stringify({ file_path: path, content: 'x' })}]]`;

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

describe('a run that asks for permission', () => {
  let bench: EngineBench;
  beforeAll(async () => {
    bench = await EngineBench.open({ sandbox: NO_SANDBOX });
  });
  afterAll(() => bench.close());

  const begin = (
    askPermission: AskPermission | undefined,
    { prompt = write('a.txt'), timeoutMs = 60_000, workspaceKey = 'work' } = {},
  ) => {
    const abort = new AbortController();
    const request = { prompt, permissionMode: 'ask', timeoutMs } as const;
    const context = { signal: abort.signal, workspaceKey, askPermission };
    return new BenchRun(bench.engine.run(request, context), abort);
  };

  it('does not count towards its timeout what the answer takes', async () => {
    const timeoutMs = 12_000;
    const questions: PermissionQuestion[] = [];
    const run = begin(
      async (question) => {
        questions.push(question);
        await new Promise((resolve) => setTimeout(resolve, 1.1 * timeoutMs));
        return { decision: 'allow' };
      },
      { timeoutMs },
    );
    expect(await run.ending()).toMatchObject({ kind: 'completed', permissionDenials: [] });
    expect(questions).toMatchObject([{ tool: 'Write', input: { content: 'x' } }]);
    expect(questions[0]?.toolUseId).toBe(run.all('tool_use')[0]?.toolUseId);
    expect(await exists(join(bench.workspace(), 'a.txt'))).toBe(true);
  });

  it('stays in its workspace, whatever is allowed', async () => {
    const outside = join(bench.directory, 'outside.txt');
    const run = begin(
      () => Promise.resolve({ decision: 'allow', updatedInput: { file_path: outside, content: 'x' } }),
      { workspaceKey: 'contained' },
    );
    expect(await run.ending()).toMatchObject({
      kind: 'completed',
      result: expect.stringContaining('working directory') as string,
    });
    expect([await exists(outside), await exists(join(bench.workspace('contained'), 'a.txt'))]).toEqual([
      false,
      false,
    ]);
  });

  it.each([
    ['nobody can be asked', undefined],
    ['asking fails', () => Promise.reject(new Error('gone'))],
  ])('is refused where %s', async (_, ask) => {
    const run = begin(ask, { workspaceKey: 'refused' });
    expect(await run.ending()).toMatchObject({ kind: 'completed', permissionDenials: [{ name: 'Write' }] });
    expect(await exists(join(bench.workspace('refused'), 'a.txt'))).toBe(false);
  });
});
