import { readFileSync } from 'node:fs';

/**
 * Bytes that a process and all that it has started have for themselves: what the machine gets back when they end. Files that
 * they share do not count. 0 where there is no /proc.
 */
export function memoryOf(pid: number): number {
  return familyOf(pid).reduce((sum, member) => sum + privateBytes(member), 0);
}

/** A process and its descendants. */
export function familyOf(pid: number): number[] {
  const children = read(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean).map(Number);
  return [pid, ...children.flatMap(familyOf)];
}

function privateBytes(pid: number): number {
  const kib = /^RssAnon:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/status`))?.[1] ?? '0';
  return Number(kib) * 1024;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
