import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export interface Started {
  pid: number;
  /** Every line so far. */
  lines: string[];
  /** Resolves with the first line, past or to come, that matches; rejects when the program ends without one. */
  line: (pattern: RegExp) => Promise<string>;
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  kill: (signal: NodeJS.Signals) => void;
}

/** A program of the checkout, in an environment of its own. */
export function startProgram(args: string[], environment: NodeJS.ProcessEnv): Started {
  const { PATH, HOME } = process.env;
  const child = spawn(process.execPath, args, {
    env: { PATH, HOME, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  const waiting = new Set<(line: string | null) => void>();
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      for (const hear of [...waiting]) hear(line);
    });
  }
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('close', (code, signal) => {
      for (const hear of [...waiting]) hear(null);
      resolve({ code, signal });
    });
  });
  return {
    pid: child.pid ?? -1,
    lines,
    exited,
    kill: (signal) => child.kill(signal),
    line: (pattern) =>
      new Promise((resolve, reject) => {
        const found = lines.find((line) => pattern.test(line));
        if (found !== undefined) {
          resolve(found);
          return;
        }
        const hear = (line: string | null) => {
          if (line !== null && !pattern.test(line)) return;
          waiting.delete(hear);
          if (line === null) reject(new Error(`It ended without ${String(pattern)}:\n${lines.join('\n')}`));
          else resolve(line);
        };
        waiting.add(hear);
      }),
  };
}
