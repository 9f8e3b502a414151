import fc from 'fast-check';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve, sep } from 'node:path';
import { isContained, refusalOf } from './path-containment.js';

let root: string;
let workspace: string;
beforeAll(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'containment-')));
  workspace = join(root, 'work');
  await mkdir(join(workspace, 'src'), { recursive: true });
  await mkdir(join(root, 'work-of-another'));
  await writeFile(join(root, 'secret.txt'), 'secret');
  await writeFile(join(workspace, 'src', 'a.ts'), '');
  await symlink(root, join(workspace, 'out'));
  await symlink(join(root, 'secret.txt'), join(workspace, 'secret-link'));
  await symlink(join(root, 'not-there-yet'), join(workspace, 'dangling'));
  await symlink(join(workspace, 'src'), join(workspace, 'in'));
  await symlink('loop', join(workspace, 'loop'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

describe('a path is inside the workspace', () => {
  it.each([
    '.',
    'src/a.ts',
    'src',
    'new.txt',
    'new/deep/er.txt',
    'in/a.ts',
    'in/new.ts',
    'a..b',
    '...',
    'é.txt',
  ])('%s', async (path) => {
    expect(await isContained(path, workspace)).toBe(true);
    expect(await isContained(join(workspace, path), workspace)).toBe(true);
  });
});

describe('a path is not inside the workspace', () => {
  it.each([
    '/etc/passwd',
    '/',
    '..',
    '../secret.txt',
    'src/../../secret.txt',
    'src/../src/a.ts',
    '../work-of-another/x',
    '~',
    '~/x',
    '~root/x',
    ' /etc/passwd',
    '/etc/passwd ',
    '',
    'a\0b',
    'out/secret.txt',
    'out/new.txt',
    'secret-link',
    'dangling',
    'dangling/x',
    'loop',
    'loop/x',
  ])('%j', async (path) => {
    expect(await isContained(path, workspace)).toBe(false);
  });

  it('that only begins with its name', async () => {
    expect(await isContained(`${workspace}-of-another/x`, workspace)).toBe(false);
  });

  it('whatever it is made of: what is let through resolves into it', async () => {
    const part = fc.constantFrom(
      '..',
      '.',
      'src',
      'out',
      'in',
      'dangling',
      'secret-link',
      'x',
      '~',
      '',
      'secret.txt',
    );
    const path = fc.tuple(fc.boolean(), fc.array(part, { maxLength: 6 }));
    await fc.assert(
      fc.asyncProperty(path, async ([isAbsolute, parts]) => {
        const given = (isAbsolute ? '/' : '') + parts.join('/');
        if (!(await isContained(given, workspace))) return;
        const real = await realpath(resolve(workspace, given)).catch(() => join(workspace, 'x'));
        expect(real === workspace || real.startsWith(workspace + sep)).toBe(true);
      }),
    );
  });
});

describe('a tool call', () => {
  const isRefused = async (tool: string, input: unknown) =>
    (await refusalOf({ tool, input, workspace })) !== null;

  it.each([
    ['Read', { file_path: '/etc/passwd' }],
    ['Write', { file_path: '../x', content: '' }],
    ['Edit', { file_path: 'out/secret.txt' }],
    ['NotebookEdit', { notebook_path: '/x.ipynb' }],
    ['Glob', { pattern: '*', path: '/etc' }],
    ['Glob', { pattern: '/etc/*' }],
    ['Glob', { pattern: '../*' }],
    ['Glob', { pattern: '*/../../*' }],
    ['Glob', { pattern: '{/etc,src}/*' }],
    ['Glob', { pattern: '{src,/etc}/*' }],
    ['Glob', { pattern: 'out/*' }],
    ['Glob', { pattern: '/*' }],
    ['Grep', { pattern: 'root', path: '/etc' }],
    ['Grep', { pattern: 'root', path: 'out' }],
    ['Grep', { pattern: 'root', glob: '../*' }],
    ['Read', { file_path: 7 }],
    ['Bash', { command: 'id' }],
    ['WebFetch', { url: 'http://localhost/' }],
    ['Task', {}],
    ['mcp__x__y', {}],
  ])('%s %j is refused', async (tool, input) => {
    expect(await isRefused(tool, input)).toBe(true);
  });

  it.each([
    ['Read', { file_path: 'src/a.ts' }],
    ['Write', { file_path: 'new.txt', content: '/etc/passwd ../..' }],
    ['Glob', { pattern: '**/*.ts' }],
    ['Glob', { pattern: 'src/*.{ts,js}' }],
    ['Glob', { pattern: '*', path: 'src' }],
    ['Grep', { pattern: '/etc/../passwd' }],
    ['Grep', { pattern: 'x', path: null, glob: '*.ts' }],
    ['TaskCreate', { subject: '/etc/passwd', description: '' }],
    ['Read', null],
  ])('%s %j is not', async (tool, input) => {
    expect(await isRefused(tool, input)).toBe(false);
  });
});
