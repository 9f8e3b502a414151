import { setTimeout as sleep } from 'node:timers/promises';
import type { KeptTranscript, Transcript, TranscriptPart } from '../../libs/claude-engine/index.js';
import { isTransient } from '../platform/prisma/database-failure.js';
import type { TranscriptsService } from '../sessions/transcripts.service.js';
import type { LiveRun } from './lease-keeper.js';
import { STORE_RETRY_MS } from './run-log.js';

/** The conversation of a run's session: the run goes on with it, and adds to it for as long as the run is its worker's. */
export class RunTranscript implements Transcript {
  constructor(
    private readonly run: LiveRun,
    private readonly sessionId: string,
    private readonly transcripts: TranscriptsService,
  ) {}

  load(): Promise<KeptTranscript | null> {
    return this.insist(() => this.transcripts.load(this.sessionId));
  }

  readMark(): Promise<number> {
    return this.insist(() => this.transcripts.readMark(this.sessionId));
  }

  async append(cliSessionId: string, part: TranscriptPart): Promise<number | null> {
    const { log } = this.run;
    if (log.isLost) return null;
    const mark = await this.insist(() => this.transcripts.append(this.run, cliSessionId, part));
    // What the CLI writes after its last word comes too late, and is not missed.
    if (mark === null && !log.isConcluding) log.lose();
    return mark;
  }

  tellGap(reason: string): void {
    void this.transcripts.tellGap(this.sessionId, reason);
  }

  /** Tries again while the database is away, for as long as the run may still be ours. */
  private async insist<T>(ask: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (this.run.log.isLost || !isTransient(error)) throw error;
        await sleep(STORE_RETRY_MS);
      }
    }
  }
}
