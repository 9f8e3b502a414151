import { randomUUID } from 'node:crypto';
import { link, mkdir, open, readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/** The secret that lies there; null where there is no such file. */
export async function readSecret(path: string): Promise<string | null> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/**
 * Leaves a secret for its owner alone (mode 0600), to survive a power cut from now on. One that lies there already stays.
 * @returns the one that lies there
 */
export async function keepSecret(path: string, secret: string): Promise<string> {
  const lying = await readSecret(path);
  if (lying) return lying;
  if (lying === '') await rm(path);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  // Of several servers on one directory, one secret wins, and nobody reads half of it.
  const draft = `${path}.${randomUUID()}`;
  await write(draft, secret);
  await link(draft, path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  });
  await rm(draft);
  await sync(dirname(path));
  return (await readSecret(path)) ?? secret;
}

async function write(path: string, secret: string): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  await file
    .writeFile(`${secret}\n`)
    .then(() => file.sync())
    .finally(() => file.close());
}

/** What was linked into a directory is durable once the directory is. */
async function sync(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  await handle.sync().finally(() => handle.close());
}
