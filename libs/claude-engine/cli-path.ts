import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** The executable that comes with the Agent SDK for this platform; null where there is none. */
export function bundledCliPath(): string | null {
  const { resolve } = createRequire(createRequire(import.meta.url).resolve('@anthropic-ai/claude-agent-sdk'));
  const name = process.platform === 'win32' ? 'claude.exe' : 'claude';
  const platform = `@anthropic-ai/claude-agent-sdk-${process.platform}-${process.arch}`;
  for (const candidate of [platform, `${platform}-musl`]) {
    try {
      return join(dirname(resolve(`${candidate}/package.json`)), name);
    } catch {
      continue;
    }
  }
  return null;
}

export async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
