import { Inject, Injectable, Logger } from '@nestjs/common';
import { type ClaudeEngine, type Ending, RunAbort } from '../../libs/claude-engine/index.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { factsOf, toEngineRequest, toOutcome, toProcessEvent } from './engine-events.js';
import { ENGINE } from './engine.provider.js';
import { ProcessChannel } from './process-channel.js';
import { type Outcome, ProcessLogRepository } from './process-log.repository.js';
import type { ProcessesRepository } from './processes.repository.js';
import { RunLog, RunLost } from './run-log.js';

export type ClaimedProcess = NonNullable<Awaited<ReturnType<ProcessesRepository['claim']>>>;

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
    private readonly log: ProcessLogRepository,
    private readonly channel: ProcessChannel,
  ) {}

  /** Never rejects: whatever fails becomes the ending of the process, or is left to the reconciler. */
  async run(claimed: ClaimedProcess, controller: AbortController): Promise<void> {
    const { id: processId, fence, lastSeq } = claimed;
    const runLog = new RunLog({
      run: { processId, fence, lastSeq },
      log: this.log,
      onCommitted: (events) => this.channel.publishEvents(processId, events),
      onCancelRequested: () => controller.abort(new RunAbort('cancelled')),
    });
    try {
      await this.drive(claimed, runLog, controller.signal);
    } catch (err) {
      if (err instanceof RunLost)
        this.logger.warn({ processId, fence }, 'The run was lost to another worker.');
      else await this.fail(runLog, processId, err);
    }
  }

  /** Writes the ending as soon as it is known, and holds the slot until the CLI is gone: a slot is one CLI. */
  private async drive(claimed: ClaimedProcess, runLog: RunLog, signal: AbortSignal): Promise<void> {
    const request = toEngineRequest(claimed, this.config.CLAUDE_TIMEOUT_MS);
    let hasEnded = false;
    for await (const event of this.engine.run(request, { signal, workspaceKey: claimed.sessionId })) {
      if (event.type === 'ended') await this.conclude(claimed, runLog, event.ending, signal);
      else await runLog.append(toProcessEvent(event, claimed.attempt), factsOf(event, this.config.demo));
      hasEnded = event.type === 'ended';
    }
    if (!hasEnded) throw new Error('The engine stopped without an ending.');
  }

  private async conclude(
    claimed: ClaimedProcess,
    runLog: RunLog,
    ending: Ending,
    signal: AbortSignal,
  ): Promise<void> {
    const isShutDown =
      signal.aborted && RunAbort.kindOf(signal.reason) === 'shutdown' && ending.kind !== 'completed';
    if (!isShutDown) return runLog.end(toOutcome(ending));
    // What never started may start elsewhere; an agent that has begun is not run twice unasked.
    await runLog.settled();
    if (await this.log.requeue({ processId: claimed.id, fence: claimed.fence })) return;
    await runLog.end({
      ...toOutcome(ending),
      status: 'failed',
      error: {
        code: 'worker_lost',
        detail: 'The server that ran this was shut down before the end.',
        retryable: true,
        retryAfterMs: null,
      },
    });
  }

  private async fail(runLog: RunLog, processId: string, err: unknown): Promise<void> {
    this.logger.error({ err, processId }, 'A run failed for a reason of our own.');
    await runLog.end(BUG).catch((error: unknown) => this.logger.error({ err: error, processId }));
  }
}
