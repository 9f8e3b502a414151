import { type SpawnedProcess } from '@anthropic-ai/claude-agent-sdk';
import { type ChildProcessWithoutNullStreams } from 'node:child_process';
import { Transform, type TransformCallback } from 'node:stream';
import { setImmediate as nextTick } from 'node:timers/promises';

/** What a CLI may say in all to one run, and what its reader may be behind. */
export interface OutputLimits {
  /** Events of the run. */
  maxEvents: number;
  /** Of the CLI's whole output to it. */
  maxBytes: number;
  /** Of one line of it: a request to the API, which a line may repeat, has 32 MB at most. */
  maxLineBytes: number;
}

export const OUTPUT_LIMITS: OutputLimits = {
  maxEvents: 250_000,
  maxBytes: 256 * 1024 * 1024,
  maxLineBytes: 48 * 1024 * 1024,
};

/** The CLI is held up when this much waits for the reader: events, and bytes since there was none. */
const MAX_WAITING_EVENTS = 200;
const MAX_WAITING_BYTES = 4 * 1024 * 1024;
const NEWLINE = 10;

/** Who takes in what becomes of the output, for now. */
export interface OutputReader {
  readonly events: {
    /** How many wait to be taken. */
    readonly length: number;
    taken(): Promise<void>;
  };
  /** The CLI has said more than the reader may be told. */
  overflow(): void;
  /** The CLI waits for the reader, or no longer does: its silence is not its own meanwhile. */
  holdUp(isHeld: boolean): void;
}

/**
 * Stands between the CLI's output and the Agent SDK, which reads on whatever becomes of what it has read: lets through as much
 * as the reader of the run's events takes in. Past a limit it tells so, once, and lets nothing through to this reader any more.
 */
export class OutputGate extends Transform {
  private bytes = 0;
  private lineBytes = 0;
  private waitingBytes = 0;
  private isShut = false;
  private reader: OutputReader | null = null;

  /** @param onOverflow told of too much while there is no reader */
  constructor(
    private readonly limits: OutputLimits,
    private readonly onOverflow: () => void,
  ) {
    super();
  }

  /** What comes from now on is this reader's, and counts anew; nobody's with null. */
  turnTo(reader: OutputReader | null): void {
    this.reader = reader;
    this.isShut = false;
    [this.bytes, this.waitingBytes] = [0, 0];
  }

  /** The process as the Agent SDK is to see it. */
  before(child: ChildProcessWithoutNullStreams): SpawnedProcess {
    child.stdout.on('error', () => this.end()).pipe(this);
    return {
      stdin: child.stdin,
      stdout: this,
      get killed() {
        return child.killed;
      },
      get exitCode() {
        return child.exitCode;
      },
      get signalCode() {
        return child.signalCode;
      },
      kill: (signal) => child.kill(signal),
      on: child.on.bind(child),
      once: child.once.bind(child),
      off: child.off.bind(child),
    };
  }

  /** Nothing is let through any more. */
  shut(): void {
    this.isShut = true;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    if (!this.isShut && this.isTooMuch(chunk)) {
      this.shut();
      if (this.reader) this.reader.overflow();
      else this.onOverflow();
    }
    if (this.isShut) {
      done();
      return;
    }
    this.push(chunk);
    this.waitingBytes += chunk.length;
    void this.untilThereIsRoom().then(() => done());
  }

  private isTooMuch(chunk: Buffer): boolean {
    const { maxBytes, maxLineBytes } = this.limits;
    const lastNewline = chunk.lastIndexOf(NEWLINE);
    this.bytes += chunk.length;
    this.lineBytes = lastNewline === -1 ? this.lineBytes + chunk.length : chunk.length - lastNewline - 1;
    return this.bytes > maxBytes || this.lineBytes > maxLineBytes;
  }

  private async untilThereIsRoom(): Promise<void> {
    // By then the SDK has read what was let through, and it waits in the queue.
    await nextTick();
    const { reader } = this;
    if (!reader || this.hasRoom(reader)) return;
    reader.holdUp(true);
    while (!this.hasRoom(reader)) await reader.events.taken();
    reader.holdUp(false);
  }

  private hasRoom({ events: { length } }: OutputReader): boolean {
    if (length === 0) this.waitingBytes = 0;
    return length < MAX_WAITING_EVENTS && this.waitingBytes < MAX_WAITING_BYTES;
  }
}
