import { Injectable, Logger } from '@nestjs/common';
import type { Caller } from '../platform/access/caller.js';
import { Lifecycle } from '../platform/health/lifecycle.js';
import { ProcessesService, type Wait } from '../processes/processes.service.js';
import type { ExecuteRequest, Process } from '../processes/processes.schemas.js';

/** The front door: takes requests in, and waits for what becomes of them. */
@Injectable()
export class ClaudeService {
  private readonly logger = new Logger(ClaudeService.name);

  constructor(
    private readonly processes: ProcessesService,
    private readonly lifecycle: Lifecycle,
  ) {}

  /** Resolves once the process is durable. */
  async submit(caller: Caller, request: ExecuteRequest): Promise<Process> {
    this.lifecycle.requireOpen();
    return this.processes.submit(caller, request);
  }

  /** Submits and waits for the end. When that takes too long, the process is returned as it is. */
  async execute(caller: Caller, request: ExecuteRequest, wait: Wait): Promise<Process> {
    const process = await this.submit(caller, request);
    this.cancelOnDisconnect(caller, process, request, wait.clientGone);
    return this.processes.waitForEnd(caller, process, wait);
  }

  /** Submits, and follows the log of the process from its first event. */
  async executeFollowed(
    caller: Caller,
    request: ExecuteRequest,
    { clientGone, signal }: { clientGone: AbortSignal; signal: AbortSignal },
  ) {
    const process = await this.submit(caller, request);
    this.cancelOnDisconnect(caller, process, request, clientGone);
    return this.processes.follow(caller, process.id, { after: 0 }, signal);
  }

  /** Cancels the process when its client goes away, if that is what the client asked for. */
  cancelOnDisconnect(
    caller: Caller,
    process: Process,
    request: ExecuteRequest,
    clientGone: AbortSignal,
  ): void {
    if (!request.cancelOnDisconnect) return;
    const cancel = () => {
      if (this.lifecycle.isDraining) return; // it is the server that goes away, not the client
      this.processes
        .cancel(caller, process.id)
        .catch((err: unknown) => this.logger.warn({ err, processId: process.id }));
    };
    if (clientGone.aborted) cancel();
    else clientGone.addEventListener('abort', cancel, { once: true });
  }
}
