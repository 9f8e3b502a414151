import { Injectable, Logger } from '@nestjs/common';
import type { Caller } from '../platform/access/caller.js';
import { Lifecycle } from '../platform/health/lifecycle.js';
import { ProcessSubmissionsService, type Submission } from '../processes/process-submissions.service.js';
import { ProcessesService, type Wait } from '../processes/processes.service.js';
import type { ExecuteRequest, Process } from '../processes/processes.schemas.js';
import type { Idempotency } from './claude.decorators.js';

interface SubmitOptions {
  idempotency: Idempotency | null;
  /** Aborts when the connection goes away that the request came over, where it stays for the process. */
  clientGone?: AbortSignal;
}

/** The front door: takes requests in, and waits for what becomes of them. */
@Injectable()
export class ClaudeService {
  private readonly logger = new Logger(ClaudeService.name);

  constructor(
    private readonly submissions: ProcessSubmissionsService,
    private readonly processes: ProcessesService,
    private readonly lifecycle: Lifecycle,
  ) {}

  /** Resolves once the process is durable: a new one, or the one that the same request has made before. */
  async submit(caller: Caller, request: ExecuteRequest, options: SubmitOptions): Promise<Process> {
    return (await this.takeIn(caller, request, options)).process;
  }

  /** Submits and waits for the end. When that takes too long, the process is returned as it is. */
  async execute(
    caller: Caller,
    request: ExecuteRequest,
    { idempotency, ...wait }: Wait & { idempotency: Idempotency | null },
  ): Promise<Process> {
    const options = { idempotency, clientGone: wait.clientGone };
    const { process, events } = await this.takeIn(caller, request, options);
    return this.processes.waitForEnd(caller, process, wait, events);
  }

  /** Submits, and follows the log of the process from the first event that there is. */
  async executeFollowed(
    caller: Caller,
    request: ExecuteRequest,
    { signal, ...options }: Required<SubmitOptions> & { signal: AbortSignal },
  ) {
    const { process, events } = await this.takeIn(caller, request, options);
    return this.processes.followFrom(process, { after: process.firstSeq - 1, known: events }, signal);
  }

  private async takeIn(
    caller: Caller,
    request: ExecuteRequest,
    { idempotency, clientGone }: SubmitOptions,
  ): Promise<Submission> {
    this.lifecycle.requireOpen();
    const submission = await this.submissions.submit(caller, request, idempotency?.key ?? null);
    if (submission.isReplayed) idempotency?.onReplayed();
    // Whoever joins later comes and goes as they please: the process is that of the connection that made it.
    else if (clientGone) this.cancelOnDisconnect(caller, submission.process, request, clientGone);
    return submission;
  }

  /** Cancels the process when its client goes away, if that is what the client asked for. */
  private cancelOnDisconnect(
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
