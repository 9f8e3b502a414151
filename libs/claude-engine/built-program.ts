import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The path of a module that Node runs by itself. Node runs what was built; a test that runs this source finds it in `dist`. */
export function builtProgram(name: string): string {
  const beside = fileURLToPath(new URL(`./${name}`, import.meta.url));
  if (existsSync(beside)) return beside;
  return fileURLToPath(new URL(`../../dist/libs/claude-engine/${name}`, import.meta.url));
}
