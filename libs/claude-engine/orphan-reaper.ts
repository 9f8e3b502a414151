import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { killRemains } from './launch-end.js';
import { type LaunchRecord, readLaunchRecord } from './launch-record.js';
import { isAlive, thisPlace } from './process-table.js';

/** A launch whose owner died: its processes are ended, its folder is gone. */
export interface ReapedLaunch {
  launchId: string;
  /** What had to be killed. */
  pids: number[];
}

/** A launch folder without a record is being made, or its maker died in between. It has this long. */
const UNRECORDED_GRACE_MS = 60 * 60 * 1000;

/**
 * Ends what dead owners left in the launches folder: kills their CLIs, known by pid and start time and by the mark in their
 * environment, and removes their folders. Leaves alone what has a living owner, and what another host left.
 */
export async function reapOrphans(launches: string): Promise<ReapedLaunch[]> {
  const reaped: ReapedLaunch[] = [];
  for (const name of await namesIn(launches)) {
    const folder = join(launches, name);
    const record = await readLaunchRecord(folder);
    if (record ? !isOrphan(record) : !(await isOld(folder))) continue;
    const pids = record && isFromThisEpoch(record) ? await endProcesses(record) : [];
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
    reaped.push({ launchId: name, pids });
  }
  return reaped;
}

function isOrphan(record: LaunchRecord): boolean {
  if (record.host !== thisPlace().host) return false;
  return !isFromThisEpoch(record) || !isAlive(record.owner);
}

/** Pids of another boot or pid namespace mean other processes, or none. */
function isFromThisEpoch(record: LaunchRecord): boolean {
  return record.epoch === thisPlace().epoch;
}

async function endProcesses({ id, cli }: LaunchRecord): Promise<number[]> {
  const groupId = cli?.startTime && isAlive(cli) ? cli.pid : null;
  const { killed } = await killRemains({ id, groupId });
  return killed;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

async function isOld(folder: string): Promise<boolean> {
  try {
    return Date.now() - (await stat(folder)).mtimeMs > UNRECORDED_GRACE_MS;
  } catch {
    return false;
  }
}
