import { chmod, mkdir, mkdtemp, readFile, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EngineFolders } from './engine-folders.js';
import { makeDeep } from './test-support.js';

describe('workspaces', () => {
  const make = async () => {
    const directory = await mkdtemp(join(tmpdir(), 'engine-folders-'));
    return { directory, folders: new EngineFolders(directory) };
  };

  it('are none before the first run', async () => {
    const { folders } = await make();
    expect(await folders.listWorkspaces()).toEqual([]);
    await folders.removeWorkspace('never-made');
  });

  it('are listed with the time of their last change, and removed with all that is in them', async () => {
    const { folders } = await make();
    const [old, other] = [await folders.makeWorkspace('old'), await folders.makeWorkspace('other')];
    await mkdir(join(old, 'deep/er'), { recursive: true });
    await writeFile(join(old, 'deep/er/file'), 'x');
    const changedAt = new Date('2026-01-01T00:00:00.000Z');
    for (const workspace of [old, other]) await utimes(workspace, changedAt, changedAt);
    const listed = await folders.listWorkspaces();
    expect(listed.toSorted((a, b) => a.key.localeCompare(b.key))).toEqual([
      { key: 'old', changedAt },
      { key: 'other', changedAt },
    ]);
    await folders.removeWorkspace('old');
    expect((await folders.listWorkspaces()).map(({ key }) => key)).toEqual(['other']);
  });

  it('are listed as no younger than they are, whatever was said of them', async () => {
    const { folders } = await make();
    const changedAt = new Date('2099-01-01T00:00:00.000Z');
    await utimes(await folders.makeWorkspace('future'), changedAt, changedAt);
    const [listed] = await folders.listWorkspaces();
    expect(listed!.changedAt.getTime()).toBeLessThanOrEqual(Date.now());
  });

  it('are removed with folders beyond every path, names that are no text and what nobody may read', async () => {
    const { folders, directory } = await make();
    const workspace = await folders.makeWorkspace('odd');
    await makeDeep(workspace, 40);
    await writeFile(Buffer.concat([Buffer.from(`${workspace}/`), Buffer.from([0xff, 0xfe])]), 'x');
    await mkdir(join(workspace, 'locked/inner'), { recursive: true });
    await chmod(join(workspace, 'locked/inner'), 0);
    await chmod(join(workspace, 'locked'), 0);
    await writeFile(join(directory, 'outside'), 'kept');
    await symlink(directory, join(workspace, 'link'));
    await folders.removeWorkspace('odd');
    expect(await folders.listWorkspaces()).toEqual([]);
    expect(await readFile(join(directory, 'outside'), 'utf8')).toBe('kept');
  });

  it('are removed where something else has taken their place', async () => {
    const { folders, directory } = await make();
    await folders.makeWorkspace('other');
    await symlink(join(directory, 'workspaces/other'), join(directory, 'workspaces/link'));
    await folders.removeWorkspace('link');
    expect((await folders.listWorkspaces()).map(({ key }) => key)).toEqual(['other']);
  });

  it('are removed by their names alone: a path is refused', async () => {
    const { folders, directory } = await make();
    await mkdir(join(directory, 'launches/one'), { recursive: true });
    await folders.makeWorkspace('kept');
    for (const key of ['../launches/one', '..', '.', '', '/etc'])
      await expect(folders.removeWorkspace(key)).rejects.toThrow(/plain name/);
    expect((await folders.listWorkspaces()).map(({ key }) => key)).toEqual(['kept']);
  });
});
