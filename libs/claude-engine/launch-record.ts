import { readFile } from 'node:fs/promises';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ProcessIdentity } from './process-table.js';

/** What is left on the disk to find a launch by, once its owner is dead. */
export interface LaunchRecord {
  id: string;
  host: string;
  epoch: string;
  /** Who started it, and answers for its end. */
  owner: ProcessIdentity;
  /** Null until it is started. It leads a process group of its own. */
  cli: ProcessIdentity | null;
}

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
    const record: unknown = JSON.parse(await readFile(join(folder, FILE_NAME), 'utf8'));
    return isLaunchRecord(record) ? record : null;
  } catch {
    return null;
  }
}

/** By hand: the guard reads records as well, and zod would double what it weighs. */
function isLaunchRecord(value: unknown): value is LaunchRecord {
  const { id, host, epoch, owner, cli } = Object(value) as Record<string, unknown>;
  const areTexts = [id, host, epoch].every((text) => typeof text === 'string');
  return areTexts && isIdentity(owner) && (cli === null || isIdentity(cli));
}

function isIdentity(value: unknown): value is ProcessIdentity {
  const { pid, startTime } = Object(value) as Record<string, unknown>;
  return Number.isInteger(pid) && Number(pid) > 0 && (startTime === null || typeof startTime === 'string');
}
