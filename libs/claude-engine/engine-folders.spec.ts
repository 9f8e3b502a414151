import { mkdir, mkdtemp, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EngineFolders } from './engine-folders.js';

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

  it('are removed by their names alone: a path is refused', async () => {
    const { folders, directory } = await make();
    await mkdir(join(directory, 'launches/one'), { recursive: true });
    await folders.makeWorkspace('kept');
    for (const key of ['../launches/one', '..', '.', '', '/etc'])
      await expect(folders.removeWorkspace(key)).rejects.toThrow(/plain name/);
    expect((await folders.listWorkspaces()).map(({ key }) => key)).toEqual(['kept']);
  });
});
