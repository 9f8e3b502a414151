import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findBubblewrap } from './bubblewrap-binary.js';

jest.setTimeout(180_000);

let directory: string;
let progress: string[];

const find = (places: { searchPath: string; toolPath?: string }) =>
  findBubblewrap({
    cacheDirectory: join(directory, 'cache'),
    onProgress: (line) => progress.push(line),
    ...places,
  });

beforeEach(async () => {
  progress = [];
  directory = await mkdtemp(join(tmpdir(), 'bubblewrap-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

it('An installed bubblewrap is taken, one that does not run is not', async () => {
  const pretend = async (lines: string) => {
    await writeFile(join(directory, 'bwrap'), `#!/bin/sh\n${lines}\n`);
    await chmod(join(directory, 'bwrap'), 0o755);
  };
  await pretend('exit 127');
  await expect(find({ searchPath: directory, toolPath: directory })).rejects.toThrow('no apt-get');
  await pretend('echo bubblewrap 0.11.0');
  expect(await find({ searchPath: directory, toolPath: directory })).toBe(join(directory, 'bwrap'));
  expect(progress).toEqual([]);
});

const describeWithApt = existsSync('/usr/bin/apt-get') ? describe : describe.skip;

describeWithApt('where none is installed', () => {
  it("is the distribution's own, unpacked privately and once", async () => {
    const installedBefore = existsSync('/usr/bin/bwrap');
    const file = await find({ searchPath: directory });
    expect(file.startsWith(join(directory, 'cache'))).toBe(true);
    expect(execFileSync(file, ['--version'], { encoding: 'utf8' })).toMatch(/^bubblewrap \d/);
    expect(existsSync('/usr/bin/bwrap')).toBe(installedBefore);
    expect(progress).toHaveLength(1);
    expect(await find({ searchPath: directory, toolPath: 'no longer needed' })).toBe(file);
  });
});
