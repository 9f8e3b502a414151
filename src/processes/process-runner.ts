import { Inject, Injectable, Logger } from '@nestjs/common';
import {
  type ClaudeEngine,
  type Ending,
  type EngineEvent,
  RunAbort,
} from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { TranscriptsService } from '../sessions/transcripts.service.js';
import { factsOf, toEngineRequest, toOutcome, toProcessEvent } from './engine-events.js';
import { ENGINE } from './engine.provider.js';
import { LeaseKeeper, type LiveRun } from './lease-keeper.js';
import { PermissionDesk } from './permission-desk.js';
import type { ClaimedProcess } from './process-claims.repository.js';
import { ProcessCommandsRepository } from './process-commands.repository.js';
import type { Outcome } from './process-outcome.js';
import { ProcessesQueue } from './processes.queue.js';
import type { FilesChanged } from './processes.schemas.js';
import { RunSteering } from './run-steering.js';
import { RunTranscript } from './run-transcript.js';
import { type RunWorkspace, RunWorkspaces } from './run-workspaces.js';
import { makeStorable } from './text-safety.js';
import { afterDrain, afterEnding, type RunHistory, type Verdict } from './run-verdict.js';

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
    private readonly leases: LeaseKeeper,
    private readonly queue: ProcessesQueue,
    private readonly transcripts: TranscriptsService,
    private readonly workspaces: RunWorkspaces,
    private readonly commands: ProcessCommandsRepository,
  ) {}

  /** Never rejects: whatever fails becomes the ending of the process, or is left to the reconciler. */
  async run(claimed: ClaimedProcess, run: LiveRun): Promise<void> {
    const workspace = this.workspaces.watch(claimed.sessionId, () =>
      run.controller.abort(new RunAbort('over_quota')),
    );
    try {
      await this.drive(claimed, run, workspace);
    } catch (err) {
      if (!run.log.isLost) await this.fail(run, err);
    } finally {
      workspace.stop();
    }
  }

  /** Writes the ending as soon as it is known, and holds the slot until the CLI is gone: a slot is one CLI. */
  private async drive(claimed: ClaimedProcess, run: LiveRun, workspace: RunWorkspace): Promise<void> {
    const request = toEngineRequest(claimed, this.config.CLAUDE_TIMEOUT_MS);
    const { signal } = run.controller;
    const { signal: kill } = run.killer;
    const transcript = new RunTranscript(run, claimed, this.transcripts);
    // In this order: what has not looked at its workspace yet has not begun to act.
    const mayAsk = () => workspace.begin().then(() => run.log.begin());
    const { ask: askPermission } = new PermissionDesk(run, this.commands, this.config.PERMISSION_TIMEOUT_MS);
    const told = new RunSteering(run, this.commands);
    const { steering } = told;
    if (claimed.attempt > 1) await told.repeat();
    const judged = async (ending: Ending) => verdictOn(ending, await workspace.changes());
    const seen: { ending: Ending | null } = { ending: null };
    const take = async (event: EngineEvent) => {
      if (event.type === 'user_message' && told.isTold(event)) return;
      if (event.type !== 'ended') {
        await run.log.append(toProcessEvent(event, claimed.attempt), factsOf(event, this.config.demo));
        if (event.type === 'user_message') await told.noteRead(event);
        return;
      }
      const { ending } = event;
      seen.ending = ending;
      if (!mayRunAgain(claimed, ending)) await this.conclude(run, await judged(ending));
    };
    const isHeld = () => this.leases.isHeld(run);
    const workspaceKey = claimed.sessionId;
    const context = { signal, kill, workspaceKey, transcript, mayAsk, isHeld, askPermission, steering };
    await readToItsEnd(this.engine.run(request, context), take, () =>
      run.controller.abort(new RunAbort('fenced')),
    );
    const { ending } = seen;
    if (!ending) throw new Error('The engine stopped without an ending.');
    if (!run.log.isConcluding) await this.conclude(run, await judged(ending));
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

/** Also where an event cannot be taken: then the run is ended, and only when its CLI is gone it is told of. */
async function readToItsEnd(
  events: AsyncIterable<EngineEvent>,
  take: (event: EngineEvent) => Promise<void>,
  end: () => void,
): Promise<void> {
  const failures: unknown[] = [];
  for await (const event of events) {
    if (failures.length > 0) continue;
    await take(event).catch((error: unknown) => {
      failures.push(error);
      end();
    });
  }
  if (failures.length > 0) throw failures[0];
}

/** Then its CLI must be gone before it waits again: the next attempt may begin at once, anywhere. */
const mayRunAgain = ({ retryOn }: ClaimedProcess, ending: Ending) =>
  ending.kind === 'failed' && retryOn.includes(ending.error.code);

/** Only what the server itself has ended is lost by it: a failure of another kind stays what it is. */
function verdictOn(ending: Ending, filesChanged: FilesChanged | null): (run: RunHistory) => Verdict {
  const outcome = makeStorable({ ...toOutcome(ending), filesChanged });
  const isByServer = ending.kind === 'failed' && ending.isByServer === true;
  return (run) => (isByServer ? afterDrain(run, outcome) : afterEnding(run, outcome));
}
