import { readFile } from 'node:fs/promises';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const ProcessIdentitySchema = z.object({
  pid: z.number().int().positive(),
  startTime: z.string().nullable(),
});

const LaunchRecordSchema = z.object({
  id: z.string(),
  host: z.string(),
  epoch: z.string(),
  /** Who started it, and answers for its end. */
  owner: ProcessIdentitySchema,
  /** Null until it is started. It leads a process group of its own. */
  cli: ProcessIdentitySchema.nullable(),
});

/** What is left on the disk to find a launch by, once its owner is dead. */
export type LaunchRecord = z.infer<typeof LaunchRecordSchema>;

const FILE_NAME = 'launch.json';

/** Written whole or not at all. Synchronous, so that no CLI runs unrecorded while somebody else has the turn. */
export function writeLaunchRecord(folder: string, record: LaunchRecord): void {
  const path = join(folder, FILE_NAME);
  writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Null if there is none, or none that can be read. */
export async function readLaunchRecord(folder: string): Promise<LaunchRecord | null> {
  try {
    return LaunchRecordSchema.parse(JSON.parse(await readFile(join(folder, FILE_NAME), 'utf8')));
  } catch {
    return null;
  }
}
