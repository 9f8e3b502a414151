import { type SpawnOptions } from '@anthropic-ai/claude-agent-sdk';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';

const STDERR_LENGTH = 16 * 1024;

/**
 * Starts the CLI without a sandbox, at the head of a process group of its own. Its end is the launch's business: the SDK's
 * `signal` is not passed on, for it would reach the head of the group alone.
 */
export function spawnPlainly({ command, args, cwd, env }: SpawnOptions): ChildProcessWithoutNullStreams {
  return spawn(command, args, { cwd, env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
}

/** The end of what a process wrote to stderr. For the operator, never for a client. */
export class StderrTail {
  private text = '';

  /** @param secret never kept */
  constructor(
    source: ChildProcessWithoutNullStreams['stderr'],
    private readonly secret: string,
  ) {
    source.setEncoding('utf8');
    source.on('data', (piece: string) => (this.text = (this.text + piece).slice(-STDERR_LENGTH)));
    source.on('error', () => undefined);
  }

  read(): string {
    return this.secret === '' ? this.text : this.text.replaceAll(this.secret, '[key]');
  }
}
