/* eslint jest/expect-expect: ["error", { "assertFunctionNames": ["expect*"] }] */
import { execFile, execFileSync } from 'node:child_process';
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { text } from 'node:stream/consumers';
import { measureWorkspace, pathFault, sweepStaging, Workspace, type WorkspaceFileFault } from './index.js';

const KIB = 1024;
const QUOTA = { quotaBytes: 1024 * KIB, maxFileBytes: 512 * KIB };

const bytes = (...chunks: string[]) => Readable.from(chunks.map((chunk) => Buffer.from(chunk)));

let top: string;
let folder: string;
/** Out of the workspace, with the file `secret`. */
let outside: string;
let workspace: Workspace;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'workspace-files-'));
  folder = join(top, 'workspaces', 'mine');
  outside = join(top, 'outside');
  await mkdir(folder, { recursive: true });
  await mkdir(outside);
  await writeFile(join(outside, 'secret'), 'secret');
  workspace = new Workspace(folder);
});
afterEach(() => rm(top, { recursive: true, force: true }));

const write = (path: string, content = path, quota = QUOTA) => workspace.write(path, bytes(content), quota);
const read = async (path: string) => text((await workspace.open(path)).content());
const paths = async () => (await workspace.list({ limit: 1000 })).map(({ path }) => path);
const here = (...names: string[]) => join(folder, ...names);
const staged = () => readdir(join(top, 'workspaces', '.staging'));
const makePipe = (path: string) => execFileSync('mkfifo', [path]);
const expectFault = (act: Promise<unknown>, fault: WorkspaceFileFault) =>
  expect(act).rejects.toMatchObject({ name: 'WorkspaceFileError', fault });

describe('a file of a workspace', () => {
  it('is what was written, in folders that are made for it, and is gone when it is removed', async () => {
    expect(await workspace.write('a/b/ü.txt', bytes('one', ' two'), QUOTA)).toBe('added');
    expect(await read('a/b/ü.txt')).toBe('one two');
    expect(await workspace.list({ limit: 10 })).toMatchObject([
      { path: 'a', type: 'folder', size: null },
      { path: 'a/b', type: 'folder' },
      { path: 'a/b/ü.txt', type: 'file', size: 7, modifiedAt: expect.any(Date) as Date },
    ]);
    await workspace.remove('a/b/ü.txt');
    await expectFault(workspace.open('a/b/ü.txt'), 'missing');
    expect(await paths()).toEqual(['a', 'a/b']);
    expect(await staged()).toEqual([]);
  });

  it('can be empty', async () => {
    await workspace.write('empty', bytes(), QUOTA);
    expect(await read('empty')).toBe('');
  });

  it('is replaced in one step: whoever reads it goes on with the old one, and another name keeps it', async () => {
    await write('a', 'old');
    await chmod(here('a'), 0o750);
    await link(here('a'), here('other'));
    const opened = await workspace.open('a');
    expect(await write('a', 'new')).toBe('replaced');
    expect(await text(opened.content())).toBe('old');
    expect([await read('a'), await read('other')]).toEqual(['new', 'old']);
    expect((await stat(here('a'))).mode & 0o777).toBe(0o750);
    expect((await workspace.open('a').then(closed)).tag).not.toBe(opened.tag);
  });

  it('breaks off where it becomes shorter while it is read', async () => {
    await write('a', 'x'.repeat(300 * KIB));
    const content = (await workspace.open('a')).content();
    const chunks = content[Symbol.asyncIterator]();
    await chunks.next();
    await truncate(here('a'), 10);
    await expect(
      (async () => {
        for (;;) if ((await chunks.next()).done) return;
      })(),
    ).rejects.toThrow(/shorter/);
  });

  it('is not there where its content does not come to its end', async () => {
    const broken = function* () {
      yield Buffer.from('half');
      throw new Error('reset');
    };
    await expectFault(workspace.write('new/a', Readable.from(broken()), QUOTA), 'broken_off');
    expect([await paths(), await staged()]).toEqual([[], []]);
  });

  it('cannot take the place of a folder, nor be one', async () => {
    await write('a/b');
    await expectFault(write('a'), 'not_a_file');
    await expectFault(write('a/b/c/d'), 'not_a_file');
    await expectFault(workspace.open('a'), 'not_a_file');
    await expectFault(workspace.open('a/b/c'), 'not_a_file');
    expect([await paths(), await staged()]).toEqual([['a', 'a/b'], []]);
  });

  const asRoot = process.getuid?.() === 0 ? it : it.skip;
  asRoot('belongs to whom the workspace does, with the folders that are made for it', async () => {
    await chown(folder, 1234, 1235);
    await mkdir(here('old'));
    await write('old/new/a');
    const owners = await Promise.all(['old', 'old/new', 'old/new/a'].map((path) => stat(here(path))));
    // eslint-disable-next-line jest/no-standalone-expect -- it is in one, where there is root
    expect(owners.map(({ uid, gid }) => [uid, gid])).toEqual([
      [0, 0],
      [1234, 1235],
      [1234, 1235],
    ]);
  });
});

const closed = async <T extends { close: () => Promise<void> }>(opened: T) => {
  await opened.close();
  return opened;
};

describe('a path', () => {
  it.each([
    ['..', 'path_outside'],
    ['a/../../b', 'path_outside'],
    ['/etc/passwd', 'path_outside'],
    ['a\0b', 'contains_nul'],
    ['', 'path_not_plain'],
    ['a//b', 'path_not_plain'],
    ['a/', 'path_not_plain'],
    ['./a', 'path_not_plain'],
    ['a\ud800', 'lone_surrogate'],
    ['x'.repeat(256), 'too_big'],
    ['ü'.repeat(128), 'too_big'],
    [`${'x'.repeat(200)}/`.repeat(21) + 'x', 'too_big'],
    ['d/'.repeat(64) + 'x', 'too_deep'],
  ])('%j is refused (%s), and leads nowhere', async (path, code) => {
    expect(pathFault(path)).toMatchObject({ code });
    await expectFault(workspace.open(path), 'path');
    await expectFault(write(path), 'path');
    await expectFault(workspace.remove(path), 'path');
    expect(await paths()).toEqual([]);
  });

  it.each([
    'x'.repeat(255),
    '...',
    '..a',
    ' a ',
    'a\\b',
    '-rf',
    'a\nb',
    'd/'.repeat(63) + 'x',
    '~',
    '%2e%2e',
  ])('%j is one like any other', async (path) => {
    expect(pathFault(path)).toBeNull();
    await write(path, 'content');
    expect(await read(path)).toBe('content');
  });
});

describe('no symlink is followed:', () => {
  beforeEach(async () => {
    await symlink(outside, here('folder'));
    await symlink(join(outside, 'secret'), here('file'));
    await symlink(join(outside, 'nothing'), here('dangling'));
  });

  it.each(['file', 'folder', 'folder/secret', 'dangling'])('to read %s', async (path) => {
    await expectFault(workspace.open(path), 'symlink');
  });

  it.each(['file', 'folder', 'folder/new', 'folder/deep/new', 'dangling'])('to write %s', async (path) => {
    await expectFault(write(path), 'symlink');
    expect(await readdir(outside)).toEqual(['secret']);
    expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('secret');
    expect(await staged().catch(() => [])).toEqual([]);
  });

  it('to remove what it leads to: it goes itself', async () => {
    await expectFault(workspace.remove('folder/secret'), 'symlink');
    await workspace.remove('folder');
    await workspace.remove('file');
    expect(await paths()).toEqual(['dangling']);
    expect(await readdir(outside)).toEqual(['secret']);
  });

  it('to list, or to count', async () => {
    await writeFile(join(outside, 'large'), 'x'.repeat(100 * KIB));
    expect(await workspace.list({ limit: 10 })).toMatchObject(
      ['dangling', 'file', 'folder'].map((path) => ({ path, type: 'symlink', size: null })),
    );
    expect(await measureWorkspace(folder)).toBe(3 * 4 * KIB);
  });

  it('also not one that takes a folder’s place while it is on the way', async () => {
    const over = new AbortController();
    const swapping = (async () => {
      while (!over.signal.aborted) {
        await rm(here('real'), { recursive: true, force: true }).catch(() => undefined);
        await mkdir(here('real')).catch(() => undefined);
        await writeFile(here('real', 'secret'), 'mine').catch(() => undefined);
        await rm(here('real'), { recursive: true, force: true }).catch(() => undefined);
        await symlink(outside, here('real')).catch(() => undefined);
      }
    })();
    const outcomes = { read: 0, refused: 0 };
    for (let round = 0; round < 150; round += 1) {
      const found = await read('real/secret').catch(() => null);
      if (found === 'mine') outcomes.read += 1;
      else outcomes.refused += 1;
      expect(['mine', '', null]).toContain(found);
      await write(`real/new${round % 5}`).catch(() => undefined);
      await workspace.remove(`real/new${round % 5}`).catch(() => undefined);
      expect(await text(await workspace.archive())).not.toContain('\0secret\0');
    }
    over.abort();
    await swapping;
    expect(outcomes.read).toBeGreaterThan(0);
    expect(outcomes.refused).toBeGreaterThan(0);
    expect(await readdir(outside)).toEqual(['secret']);
    expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('secret');
  });
});

describe('a pipe', () => {
  it('is neither opened nor waited for, and can be removed', async () => {
    makePipe(here('pipe'));
    await expectFault(workspace.open('pipe'), 'not_a_file');
    await expectFault(write('pipe'), 'not_a_file');
    expect(await workspace.list({ limit: 10 })).toMatchObject([{ path: 'pipe', type: 'other', size: null }]);
    expect(await text(await workspace.archive())).not.toContain('pipe');
    await workspace.remove('pipe');
    expect(await paths()).toEqual([]);
  });

  it('that takes a file’s place is not waited for', async () => {
    await write('a', 'content');
    const over = new AbortController();
    const swapping = (async () => {
      makePipe(here('pipe'));
      while (!over.signal.aborted) {
        await rename(here('a'), here('kept')).catch(() => undefined);
        await link(here('pipe'), here('a')).catch(() => undefined);
        await rename(here('kept'), here('a')).catch(() => undefined);
      }
    })();
    for (let round = 0; round < 300; round += 1)
      expect(['content', 'not_a_file', 'missing']).toContain(
        await read('a').catch((error: unknown) => (error as { fault: string }).fault),
      );
    over.abort();
    await swapping;
  });
});

describe('a workspace', () => {
  const small = { quotaBytes: 40 * KIB, maxFileBytes: 20 * KIB };

  it('takes no file that is larger than one may be, and leaves nothing of it', async () => {
    await expectFault(write('new/a', 'x'.repeat(20 * KIB + 1), small), 'too_large');
    expect([await paths(), await staged()]).toEqual([[], []]);
    expect(await write('a', 'x'.repeat(20 * KIB), small)).toBe('added');
  });

  it('takes no more than it may hold; what is replaced makes room', async () => {
    await write('a', 'x'.repeat(20 * KIB), small);
    await write('b', 'x'.repeat(16 * KIB), small);
    await expectFault(write('c', 'x'.repeat(4 * KIB + 1), small), 'full');
    expect(await write('b', 'y'.repeat(20 * KIB), small)).toBe('replaced');
    await expectFault(write('c', '', small), 'full');
    expect([await paths(), await staged()]).toEqual([['a', 'b'], []]);
    await workspace.remove('a');
    expect(await write('c', '', small)).toBe('added');
  });

  it('holds no more than it may where many write at once', async () => {
    let last: Promise<unknown> = Promise.resolve();
    const inTurn = <T>(act: () => Promise<T>): Promise<T> => {
      const mine = last.then(act);
      last = mine.catch(() => undefined);
      return mine;
    };
    const writing = Array.from({ length: 8 }, (_, index) =>
      workspace.write(`f${index}`, bytes('x'.repeat(12 * KIB)), small, inTurn),
    );
    const outcomes = await Promise.allSettled(writing);
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(3);
    expect(await paths()).toHaveLength(3);
    expect(await staged()).toEqual([]);
  });

  it('counts what has several names once, each name that is no text, and what is too deep as too much', async () => {
    await write('a', 'x'.repeat(10 * KIB));
    await link(here('a'), here('b'));
    expect(await measureWorkspace(folder)).toBe(12 * KIB);
    await writeFile(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff])]), 'x');
    expect(await measureWorkspace(folder)).toBe(16 * KIB);
    expect(await paths()).toEqual(['a', 'b']);
    await mkdir(here(...Array<string>(70).fill('d')), { recursive: true });
    expect(await measureWorkspace(folder)).toBe(Infinity);
    await expectFault(write('c'), 'full');
    await workspace.remove('d');
    expect(await write('c')).toBe('added');
    expect(await staged()).toEqual([]);
  });

  it('is listed in pages, which meet', async () => {
    for (const path of ['a', 'a!', 'a.txt', 'b/c/d', 'b/c!', 'b/e', 'z']) await write(path);
    const all = await paths();
    expect(all).toEqual(['a', 'a!', 'a.txt', 'b', 'b/c', 'b/c/d', 'b/c!', 'b/e', 'z']);
    for (const [index, after] of all.entries())
      expect((await workspace.list({ after, limit: 2 })).map(({ path }) => path)).toEqual(
        all.slice(index + 1, index + 3),
      );
    await workspace.remove('b/c');
    expect((await workspace.list({ after: 'b/c/d', limit: 1 })).map(({ path }) => path)).toEqual(['b/c!']);
  });

  it('is missing where nothing has made it', async () => {
    const none = new Workspace(join(top, 'workspaces', 'none'));
    await expectFault(none.list({ limit: 1 }), 'missing');
    await expectFault(none.archive(), 'missing');
    await expectFault(none.open('a'), 'missing');
    await expectFault(none.write('a', bytes('a'), QUOTA), 'missing');
    expect(await staged()).toEqual([]);
  });

  it('is the same again when its archive is unpacked', async () => {
    const long = `${'long name '.repeat(12)}ü`;
    await write('empty', '');
    await write(`folder/${long}/${long}`, 'x'.repeat(1000));
    await write('block', 'x'.repeat(512));
    await write('large', 'y'.repeat(300 * KIB));
    await write('line\nbreak', 'z');
    await chmod(here('block'), 0o755);
    await mkdir(here('hollow'));
    await symlink('block', here('link'));
    await symlink(`folder/${long}/${long}`, here('far'));
    const unpacked = join(top, 'unpacked');
    await mkdir(unpacked);
    const tar = execFile('tar', ['-xf', '-', '-C', unpacked]);
    const left = new Promise((resolve) => tar.once('exit', resolve));
    await pipeline(await workspace.archive(), tar.stdin!);
    expect(await left).toBe(0);
    expect(execFileSync('diff', ['-r', '--no-dereference', folder, unpacked]).toString()).toBe('');
    for (const path of await paths()) {
      const [was, is] = [await lstat(here(path)), await lstat(join(unpacked, path))];
      expect([path, is.mode]).toEqual([path, was.mode]);
    }
    const [was, is] = [await stat(here('large')), await stat(join(unpacked, 'large'))];
    expect(Math.floor(is.mtimeMs / 1000)).toBe(Math.floor(was.mtimeMs / 1000));
  });

  it('lets go of what it holds where nobody reads to the end', async () => {
    await write('a', 'x'.repeat(300 * KIB));
    const held = async () => (await readdir('/proc/self/fd')).length;
    const before = await held();
    for (let round = 0; round < 20; round += 1) {
      const streams = [await workspace.archive(), (await workspace.open('a')).content()];
      if (round % 2 === 0) for (const stream of streams) await stream[Symbol.asyncIterator]().next();
      await Promise.all(
        streams.map((stream) => new Promise((resolve) => stream.once('close', resolve).destroy())),
      );
    }
    expect(await held()).toBeLessThan(before + 10);
  });
});

it('what a dead server left beside the workspaces is taken apart, once it is old', async () => {
  const staging = join(top, 'workspaces', '.staging');
  await mkdir(join(staging, 'half', 'deep'), { recursive: true });
  await writeFile(join(staging, 'upload'), 'x');
  await sweepStaging(join(top, 'workspaces'), new Date(Date.now() - 60_000));
  expect((await readdir(staging)).sort()).toEqual(['half', 'upload']);
  await sweepStaging(join(top, 'workspaces'), new Date(Date.now() + 60_000));
  expect(await readdir(staging)).toEqual([]);
});
