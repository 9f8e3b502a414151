import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findRedisBinary } from './redis-binary.js';

jest.setTimeout(180_000);

describe('the Redis program', () => {
  let directory: string;
  let progress: string[];

  const find = (places: { searchPath: string; toolPath?: string; cacheDirectory?: string }) =>
    findRedisBinary({
      cacheDirectory: join(directory, 'cache'),
      onProgress: (line) => progress.push(line),
      signal: undefined,
      ...places,
    });

  const pretendProgram = async (path: string, lines: string) => {
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, `#!/bin/sh\n${lines}\n`);
    await chmod(path, 0o755);
  };

  beforeEach(async () => {
    progress = [];
    directory = await mkdtemp(join(tmpdir(), 'redis-binary-'));
  });

  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  it('is the first on the search path that runs, Valkey before Redis', async () => {
    const [broken, redis, valkey] = ['broken', 'redis', 'valkey'].map((name) => join(directory, name));
    await pretendProgram(`${broken!}/valkey-server`, 'exit 127');
    await pretendProgram(`${redis!}/redis-server`, 'echo Redis server v=7.0.15');
    const searchPath = `${broken!}:${redis!}`;

    expect((await find({ searchPath })).file).toBe(`${redis!}/redis-server`);
    await pretendProgram(`${valkey!}/valkey-server`, 'echo Valkey server v=8.1.1');
    expect((await find({ searchPath: `${searchPath}:${valkey!}` })).file).toBe(`${valkey!}/valkey-server`);
    expect(progress).toEqual([]);
  });

  it('names the ways out when there is none and nothing to fetch one with', async () => {
    await expect(find({ searchPath: directory, toolPath: directory })).rejects.toThrow(
      /no valkey-server or redis-server here.*Install one \(apt install redis-server.*or set REDIS_URL/s,
    );
  });

  it("names the ways out with the tool's own words when the archive cannot be reached", async () => {
    const tools = join(directory, 'tools');
    await pretendProgram(
      `${tools}/apt-get`,
      'echo "E: Temporary failure resolving the archive" >&2; exit 100',
    );
    await pretendProgram(`${tools}/dpkg-deb`, 'exit 1');

    await expect(find({ searchPath: directory, toolPath: tools })).rejects.toThrow(
      /E: Temporary failure resolving the archive.*Install one .*or set REDIS_URL/s,
    );
    expect(await readdir(join(directory, 'cache'))).toEqual([]);
  });

  const describeWithApt = existsSync('/usr/bin/apt-get') ? describe : describe.skip;

  describeWithApt('where none is installed', () => {
    it("is the distribution's own package, unpacked privately and once", async () => {
      const installedBefore = existsSync('/usr/bin/redis-server');
      const searchPath = join(directory, 'nothing here');
      const both = await Promise.all([find({ searchPath }), find({ searchPath })]);
      const version = execFileSync(both[0].file, ['--version'], { env: both[0].env, encoding: 'utf8' });

      expect(version).toMatch(/server v=\d/);
      expect(both[1]).toEqual(both[0]);
      expect(both[0].file.startsWith(join(directory, 'cache/redis/usr/bin/'))).toBe(true);
      expect(existsSync('/usr/bin/redis-server')).toBe(installedBefore);
      expect(await readdir(join(directory, 'cache'))).toEqual(['redis']);
      expect(progress[0]).toMatch(/^Fetching the Redis package of this distribution/);

      progress = [];
      await find({ searchPath, toolPath: 'no longer needed' });
      expect(progress).toEqual([]);
    });
  });
});
