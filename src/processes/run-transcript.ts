import type { KeptTranscript, Transcript, TranscriptPart } from '../../libs/claude-engine/index.js';
import type { TranscriptsService } from '../sessions/transcripts.service.js';
import type { LiveRun } from './lease-keeper.js';
import type { ClaimedProcess } from './process-claims.repository.js';
import { whileOurs } from './while-ours.js';

/** The mark of a session to which nothing was ever added. */
const NOTHING = 0;

/** The conversation of a run's session: the run goes on with it, and adds to it for as long as the run is its worker's. */
export class RunTranscript implements Transcript {
  private readonly sessionId: string;
  private mark: number;

  constructor(
    private readonly run: LiveRun,
    { sessionId, transcriptMark }: Pick<ClaimedProcess, 'sessionId' | 'transcriptMark'>,
    private readonly transcripts: TranscriptsService,
  ) {
    this.sessionId = sessionId;
    this.mark = transcriptMark;
  }

  async load(): Promise<KeptTranscript | null> {
    if (this.mark === NOTHING) return null;
    return whileOurs(this.run.log, () => this.transcripts.load(this.sessionId));
  }

  readMark(): Promise<number> {
    // Nobody but the run adds to it.
    return Promise.resolve(this.mark);
  }

  async append(cliSessionId: string, part: TranscriptPart): Promise<number | null> {
    const { log } = this.run;
    if (log.isLost) return null;
    const mark = await whileOurs(log, () => this.transcripts.append(this.run, cliSessionId, part));
    // What the CLI writes after its last word comes too late, and is not missed.
    if (mark === null && !log.isConcluding) log.lose();
    this.mark = mark ?? this.mark;
    return mark;
  }

  tellGap(reason: string): void {
    void this.transcripts.tellGap(this.sessionId, reason);
  }
}
