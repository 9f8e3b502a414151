import { Inject, Injectable } from '@nestjs/common';
import type { ClaudeEngine } from '../../libs/claude-engine/index.js';
import { orLate } from '../platform/timing/or-late.js';
import { ENGINE } from './engine.provider.js';
import { ProcessWorker } from './process-worker.js';
import { ProcessesProcessor } from './processes.processor.js';
import { StrayRuns } from './stray-runs.js';
import { WorkerAnnouncer } from './worker-announcer.js';

const PAUSE_GRACE_MS = 3_000;

/** The end of a worker, in order. */
@Injectable()
export class ProcessDrain {
  constructor(
    @Inject(ENGINE) private readonly engine: ClaudeEngine,
    private readonly processor: ProcessesProcessor,
    private readonly worker: ProcessWorker,
    private readonly strays: StrayRuns,
    private readonly announcer: WorkerAnnouncer,
  ) {}

  /** Takes nothing new, lets what runs end until the signal aborts, ends the rest. Resolves when no CLI is left. */
  async drain(signal: AbortSignal): Promise<void> {
    const drained = this.worker.drain(signal);
    // Redis may be away, and Bull then waits for ever; the worker claims nothing any more, whatever comes.
    await orLate(
      this.processor.pause().catch(() => undefined),
      PAUSE_GRACE_MS,
    );
    await drained;
    await this.strays.stop();
    await this.announcer.stop();
    await this.engine.close();
  }
}
