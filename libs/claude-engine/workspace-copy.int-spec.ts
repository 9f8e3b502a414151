import { execFileSync } from 'node:child_process';
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
  truncate,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EngineFolders } from './engine-folders.js';
import { makeDeep } from './test-support.js';

let directory: string;
let folders: EngineFolders;
let origin: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'copies-'));
  folders = new EngineFolders(directory);
  origin = await folders.makeWorkspace('origin');
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const copied = (path = '') => join(directory, 'workspaces/copy', path);

it('copies files, folders and symlinks, with their permissions', async () => {
  await mkdir(join(origin, 'a/b'), { recursive: true });
  await writeFile(join(origin, 'a/b/run.sh'), 'echo hi');
  await chmod(join(origin, 'a/b/run.sh'), 0o754);
  await writeFile(join(origin, '.hidden ä'), Buffer.alloc(3_000_000, 7));
  await symlink('a/b/run.sh', join(origin, 'link'));
  expect(await folders.copyWorkspace('origin', 'copy')).toBe(true);
  expect(await readFile(copied('a/b/run.sh'), 'utf8')).toBe('echo hi');
  expect((await lstat(copied('a/b/run.sh'))).mode & 0o777).toBe(0o754);
  expect((await readFile(copied('.hidden ä'))).equals(Buffer.alloc(3_000_000, 7))).toBe(true);
  expect(await readlink(copied('link'))).toBe('a/b/run.sh');
});

it('is a copy: what happens to one does not happen to the other', async () => {
  await writeFile(join(origin, 'a.txt'), 'before');
  await folders.copyWorkspace('origin', 'copy');
  await writeFile(join(origin, 'a.txt'), 'after');
  await writeFile(copied('b.txt'), 'new');
  expect(await readFile(copied('a.txt'), 'utf8')).toBe('before');
  expect(await readdir(origin)).toEqual(['a.txt']);
});

it('follows no symlink out, whether to a file or to a folder', async () => {
  await writeFile(join(directory, 'secret'), 'secret');
  await symlink(join(directory, 'secret'), join(origin, 'file'));
  await symlink(directory, join(origin, 'folder'));
  await folders.copyWorkspace('origin', 'copy');
  for (const name of ['file', 'folder']) expect((await lstat(copied(name))).isSymbolicLink()).toBe(true);
  await rm(origin, { recursive: true });
  await symlink(directory, origin);
  expect(await folders.copyWorkspace('origin', 'another')).toBe(false);
});

it('leaves out pipes, and does not wait for them', async () => {
  execFileSync('mkfifo', [join(origin, 'pipe')]);
  await writeFile(join(origin, 'a.txt'), 'a');
  await folders.copyWorkspace('origin', 'copy');
  expect(await readdir(copied())).toEqual(['a.txt']);
});

it('follows no symlink that takes the place of a folder meanwhile', async () => {
  await mkdir(join(directory, 'outside'));
  await writeFile(join(directory, 'outside/secret'), 'secret');
  const swapped = join(origin, 'swapped');
  let isOver = false;
  const swap = async () => {
    while (!isOver) {
      await rm(swapped, { recursive: true, force: true });
      await mkdir(swapped);
      await writeFile(join(swapped, 'own'), 'own');
      await rm(swapped, { recursive: true, force: true });
      await symlink(join(directory, 'outside'), swapped);
    }
  };
  const swapping = swap();
  const found = new Set<string>();
  for (let count = 0; count < 200; count += 1) {
    await folders.copyWorkspace('origin', `copy-${count}`);
    const copy = join(directory, 'workspaces', `copy-${count}`, 'swapped');
    const isFolder = (await lstat(copy).catch(() => null))?.isDirectory() ?? false;
    if (isFolder) for (const name of await readdir(copy)) found.add(name);
  }
  isOver = true;
  await swapping;
  expect([...found]).not.toContain('secret');
});

it('copies what no path leads to, and names that are no text', async () => {
  await makeDeep(origin, 40);
  const name = Buffer.from([0xff, 0xfe]);
  await writeFile(Buffer.concat([Buffer.from(`${origin}/`), name]), 'odd');
  await folders.copyWorkspace('origin', 'copy');
  expect(await readFile(Buffer.concat([Buffer.from(copied('/')), name]), 'utf8')).toBe('odd');
  await folders.removeWorkspace('copy');
  await folders.removeWorkspace('origin');
});

it.each([
  ['too_deep', () => makeDeep(origin, 70)],
  [
    'too_large',
    () => writeFile(join(origin, 'sparse'), '').then(() => truncate(join(origin, 'sparse'), 1e12)),
  ],
])('does not copy what is %s, and leaves nothing of the copy', async (reason, spoil) => {
  await writeFile(join(origin, 'a.txt'), 'a');
  await spoil();
  await expect(folders.copyWorkspace('origin', 'copy')).rejects.toMatchObject({ reason });
  expect(await folders.listWorkspaces()).toMatchObject([{ key: 'origin' }]);
  await folders.removeWorkspace('origin');
});

it('copies nothing where there is no origin, and takes no path for a name', async () => {
  expect(await folders.copyWorkspace('missing', 'copy')).toBe(false);
  expect(await folders.listWorkspaces()).toMatchObject([{ key: 'origin' }]);
  await expect(folders.copyWorkspace('../launches', 'copy')).rejects.toThrow(/plain name/);
  await expect(folders.copyWorkspace('origin', '../copy')).rejects.toThrow(/plain name/);
});
