import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { killRemains } from './launch-end.js';
import { type LaunchRecord, readLaunchRecord } from './launch-record.js';
import { isAlive, type ProcessIdentity, thisPlace } from './process-table.js';
import { removeTree } from './workspace-removal.js';

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
  for (const { name, folder, record } of await launchesIn(launches)) {
    if (record ? !isOrphan(record) : !(await isOld(folder))) continue;
    const pids = record && isFromThisEpoch(record) ? (await endLaunch(record)).killed : [];
    await removeLaunch(folder);
    reaped.push({ launchId: name, pids });
  }
  return reaped;
}

/** The launches that one owner on this machine answers for. */
export async function recordsOf(
  owner: ProcessIdentity,
  launches: string,
): Promise<{ folder: string; record: LaunchRecord }[]> {
  const { host } = thisPlace();
  const found = await launchesIn(launches);
  return found.flatMap(({ folder, record }) =>
    record?.host === host &&
    isFromThisEpoch(record) &&
    record.owner.pid === owner.pid &&
    record.owner.startTime === owner.startTime
      ? [{ folder, record }]
      : [],
  );
}

/** Kills whatever runs of a launch of this machine, whoever owns it: see killRemains. */
export function endLaunch({ id, cli }: LaunchRecord): Promise<{ killed: number[]; left: number[] }> {
  const groupId = cli?.startTime && isAlive(cli) ? cli.pid : null;
  return killRemains({ id, groupId });
}

export async function removeLaunch(folder: string): Promise<void> {
  await removeTree(folder);
}

function isOrphan(record: LaunchRecord): boolean {
  if (record.host !== thisPlace().host) return false;
  return !isFromThisEpoch(record) || !isAlive(record.owner);
}

/** Pids of another boot or pid namespace mean other processes, or none. */
function isFromThisEpoch(record: LaunchRecord): boolean {
  return record.epoch === thisPlace().epoch;
}

async function launchesIn(
  launches: string,
): Promise<{ name: string; folder: string; record: LaunchRecord | null }[]> {
  const names = await namesIn(launches);
  return Promise.all(
    names.map(async (name) => {
      const folder = join(launches, name);
      return { name, folder, record: await readLaunchRecord(folder) };
    }),
  );
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
