import { Inject, Injectable, Logger } from '@nestjs/common';
import type { ClaudeEngine, Ending } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { TranscriptsService } from '../sessions/transcripts.service.js';
import { factsOf, toEngineRequest, toOutcome, toProcessEvent } from './engine-events.js';
import { ENGINE } from './engine.provider.js';
import type { LiveRun } from './lease-keeper.js';
import { PermissionDesk } from './permission-desk.js';
import type { ProcessClaimsRepository } from './process-claims.repository.js';
import { ProcessCommandsRepository } from './process-commands.repository.js';
import type { Outcome } from './process-outcome.js';
import { ProcessesQueue } from './processes.queue.js';
import { RunSteering } from './run-steering.js';
import { RunTranscript } from './run-transcript.js';
import { makeStorable } from './text-safety.js';
import { afterDrain, afterEnding, type RunHistory, type Verdict } from './run-verdict.js';

export type ClaimedProcess = NonNullable<Awaited<ReturnType<ProcessClaimsRepository['claim']>>>;

const BUG: Outcome = {
  status: 'failed',
  error: {
    code: 'internal',
    detail: 'The server failed while it ran this.',
    retryable: false,
    retryAfterMs: null,
  },
};

/** Runs one claimed process on the engine, and writes down what becomes of it. */
@Injectable()
export class ProcessRunner {
  private readonly logger = new Logger(ProcessRunner.name);

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    @Inject(ENGINE) private readonly engine: ClaudeEngine,
    private readonly queue: ProcessesQueue,
    private readonly transcripts: TranscriptsService,
    private readonly commands: ProcessCommandsRepository,
  ) {}

  /** Never rejects: whatever fails becomes the ending of the process, or is left to the reconciler. */
  async run(claimed: ClaimedProcess, run: LiveRun): Promise<void> {
    try {
      await this.drive(claimed, run);
    } catch (err) {
      if (!run.log.isLost) await this.fail(run, err);
    }
  }

  /** Writes the ending as soon as it is known, and holds the slot until the CLI is gone: a slot is one CLI. */
  private async drive(claimed: ClaimedProcess, run: LiveRun): Promise<void> {
    const request = toEngineRequest(claimed, this.config.CLAUDE_TIMEOUT_MS);
    const { signal } = run.controller;
    const { sessionId } = claimed;
    const transcript = new RunTranscript(run, sessionId, this.transcripts);
    const mayAsk = () => run.log.begin();
    const { ask: askPermission } = new PermissionDesk(run, this.commands, this.config.PERMISSION_TIMEOUT_MS);
    const told = new RunSteering(run, this.commands);
    const { steering } = told;
    if (claimed.attempt > 1) await told.repeat();
    let ending: Ending | null = null;
    for await (const event of this.engine.run(request, {
      signal,
      workspaceKey: sessionId,
      transcript,
      mayAsk,
      askPermission,
      steering,
    })) {
      if (event.type === 'user_message' && told.isTold(event)) continue;
      if (event.type !== 'ended') {
        await run.log.append(toProcessEvent(event, claimed.attempt), factsOf(event, this.config.demo));
        if (event.type === 'user_message') await told.noteRead(event);
        continue;
      }
      ({ ending } = event);
      if (!mayRunAgain(claimed, ending)) await this.conclude(run, verdictOn(ending));
    }
    if (!ending) throw new Error('The engine stopped without an ending.');
    if (!run.log.isConcluding) await this.conclude(run, verdictOn(ending));
  }

  private async conclude({ log }: LiveRun, judge: (run: RunHistory) => Verdict): Promise<void> {
    const { next } = await log.conclude(judge);
    if (next) void this.queue.dispatch([next]);
  }

  private async fail(run: LiveRun, err: unknown): Promise<void> {
    const { processId } = run;
    this.logger.error({ err, processId }, 'A run failed for a reason of our own.');
    await this.conclude(run, (history) => afterEnding(history, BUG)).catch((error: unknown) =>
      this.logger.error({ err: error, processId }),
    );
  }
}

/** Then its CLI must be gone before it waits again: the next attempt may begin at once, anywhere. */
const mayRunAgain = ({ retryOn }: ClaimedProcess, ending: Ending) =>
  ending.kind === 'failed' && retryOn.includes(ending.error.code);

/** Only what the server itself has ended is lost by it: a failure of another kind stays what it is. */
function verdictOn(ending: Ending): (run: RunHistory) => Verdict {
  const outcome = makeStorable(toOutcome(ending));
  const isByServer = ending.kind === 'failed' && ending.isByServer === true;
  return (run) => (isByServer ? afterDrain(run, outcome) : afterEnding(run, outcome));
}
