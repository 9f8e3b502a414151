import type { KeptTranscript, Transcript, TranscriptPart } from '../../libs/claude-engine/index.js';
import type { TranscriptsService } from '../sessions/transcripts.service.js';
import type { LiveRun } from './lease-keeper.js';
import { whileOurs } from './while-ours.js';

/** The conversation of a run's session: the run goes on with it, and adds to it for as long as the run is its worker's. */
export class RunTranscript implements Transcript {
  constructor(
    private readonly run: LiveRun,
    private readonly sessionId: string,
    private readonly transcripts: TranscriptsService,
  ) {}

  load(): Promise<KeptTranscript | null> {
    return whileOurs(this.run.log, () => this.transcripts.load(this.sessionId));
  }

  readMark(): Promise<number> {
    return whileOurs(this.run.log, () => this.transcripts.readMark(this.sessionId));
  }

  async append(cliSessionId: string, part: TranscriptPart): Promise<number | null> {
    const { log } = this.run;
    if (log.isLost) return null;
    const mark = await whileOurs(log, () => this.transcripts.append(this.run, cliSessionId, part));
    // What the CLI writes after its last word comes too late, and is not missed.
    if (mark === null && !log.isConcluding) log.lose();
    return mark;
  }

  tellGap(reason: string): void {
    void this.transcripts.tellGap(this.sessionId, reason);
  }
}
