import { type ChildProcessWithoutNullStreams } from 'node:child_process';

const STDERR_LENGTH = 16 * 1024;

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
