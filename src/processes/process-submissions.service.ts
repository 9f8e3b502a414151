import { Inject, Injectable } from '@nestjs/common';
import { v7 as uuid } from 'uuid';
import type { Caller } from '../platform/access/caller.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { AppError } from '../platform/errors/app-error.js';
import { type SessionChoice, SessionsService } from '../sessions/sessions.service.js';
import type { ProcessEvent } from './process-events.schemas.js';
import type { NewProcess } from './process-row.repository.js';
import {
  type NamedRequest,
  ProcessSubmissionsRepository,
  type Submitted,
  SubmitUnanswered,
} from './process-submissions.repository.js';
import { Turns } from '../platform/timing/turns.js';
import { toProcess } from './process-view.js';
import { ProcessesQueue } from './processes.queue.js';
import type { ExecuteRequest, Process } from './processes.schemas.js';
import { ProcessesService } from './processes.service.js';
import { QueueForecastService } from './queue-forecast.service.js';
import { RequestChecks } from './request-checks.js';
import { hashOf } from './request-hash.js';

const KEY_KEPT_MS = 24 * 60 * 60 * 1000;
const PREVIEW_CHARACTERS = 200;
/** When a place in the queue may be free again, where nothing tells. */
const RETRY_AFTER_MS = 10_000;
const MIN_RETRY_AFTER_MS = 1_000;
const MAX_RETRY_AFTER_MS = 5 * 60 * 1000;

export interface Submission {
  process: Process;
  /** The request had been sent before, and this is the process that it made then. */
  isReplayed: boolean;
  /** What is known of its log. */
  events: ProcessEvent[];
}

/** Takes processes in. */
@Injectable()
export class ProcessSubmissionsService {
  /** A user's submits wait for each other anyway: here they do so without a connection to the database each. */
  private readonly turns = new Turns();

  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly checks: RequestChecks,
    private readonly submissions: ProcessSubmissionsRepository,
    private readonly processes: ProcessesService,
    private readonly queue: ProcessesQueue,
    private readonly forecast: QueueForecastService,
    private readonly sessions: SessionsService,
  ) {}

  /**
   * Resolves once the process is durable.
   * @throws AppError what RequestChecks refuses, `idempotency_key_reused`, `queue_full`, `session_not_found`, `session_busy`,
   * `outcome_unknown`
   */
  async submit(caller: Caller, request: ExecuteRequest, key: string | null): Promise<Submission> {
    await this.checks.require(request);
    const named = key === null ? null : { key, requestHash: hashOf(request), keptMs: KEY_KEPT_MS };
    const submitted = await this.take(caller, request, named);
    switch (submitted.kind) {
      case 'created':
        void this.queue.dispatch([submitted.row]);
        return {
          process: toProcess(submitted.row, submitted.queuePosition),
          isReplayed: false,
          events: submitted.events,
        };
      case 'joined':
        return {
          process: await this.processes.find(caller, submitted.processId),
          isReplayed: true,
          events: [],
        };
      case 'key_reused':
        throw new AppError('idempotency_key_reused', `The key ${key ?? ''} stands for another request.`);
      case 'full':
        throw await this.queueFull(caller, submitted.of);
    }
  }

  private async take(
    caller: Caller,
    request: ExecuteRequest,
    named: NamedRequest | null,
  ): Promise<Submitted> {
    const { QUEUE_MAX_PENDING: maxPending, QUEUE_MAX_PENDING_PER_USER: maxPendingPerUser } = this.config;
    const process = this.toNewProcess(caller, request);
    // A submit looks for its name itself. A fork's would come after its files, and its origin may be gone.
    const joined =
      named && process.session.kind === 'forked'
        ? await this.submissions.findNamed(caller.userId, named)
        : null;
    if (joined) return joined;
    await this.sessions.prepare(caller, process.session);
    const limits = { maxPending, maxPendingPerUser };
    const submit = () => this.submissions.submit({ process, named, limits });
    return this.turns.take(caller.userId, submit).catch((error: unknown) => {
      throw error instanceof SubmitUnanswered ? unanswered(error, named) : error;
    });
  }

  private toNewProcess({ userId }: Caller, request: ExecuteRequest): NewProcess {
    const { prompt, metadata, priority, retry, queueTimeoutMs = null, ...others } = request;
    const { sessionId, forkSession, outputSchema, ...rest } = others;
    return {
      id: uuid(),
      userId,
      session: chosenSession(sessionId, forkSession),
      prompt,
      promptPreview: previewOf(prompt),
      // As text: jsonb would sort its fields, and a model fills them in as they come.
      request: outputSchema ? { ...rest, outputSchema: JSON.stringify(outputSchema) } : rest,
      metadata,
      priority,
      maxAttempts: retry?.maxAttempts ?? 1,
      retryOn: retry?.on ?? [],
      queueTimeoutMs,
      demo: this.config.demo,
    };
  }

  private async queueFull({ userId }: Caller, of: 'user' | 'all'): Promise<AppError> {
    const untilNextMs = await this.forecast.msUntilNextStart(of === 'user' ? userId : null);
    const retryAfterMs = Math.min(
      Math.max(untilNextMs ?? RETRY_AFTER_MS, MIN_RETRY_AFTER_MS),
      MAX_RETRY_AFTER_MS,
    );
    const detail =
      of === 'user'
        ? `You have ${this.config.QUEUE_MAX_PENDING_PER_USER} processes waiting; more are not taken.`
        : `${this.config.QUEUE_MAX_PENDING} processes wait; more are not taken.`;
    return new AppError('queue_full', detail, { retryAfterMs });
  }
}

function chosenSession(sessionId: string | undefined, isForked: boolean): SessionChoice {
  if (sessionId === undefined) return { kind: 'new', id: uuid() };
  return isForked
    ? { kind: 'forked', id: uuid(), originId: sessionId }
    : { kind: 'continued', id: sessionId };
}

/** Under a key the same again finds what was made; without one it would be made, and paid for, twice. */
function unanswered({ processId, cause }: SubmitUnanswered, named: NamedRequest | null): unknown {
  if (named) return cause;
  const detail = `The database did not say whether process ${processId} was made. Look for it before you send this again; with an Idempotency-Key it could be sent again as it is.`;
  return new AppError('outcome_unknown', detail, { cause });
}

// Whole characters: a cut pair of surrogates is no text.
const previewOf = (prompt: string) =>
  Array.from(prompt.slice(0, 2 * PREVIEW_CHARACTERS))
    .slice(0, PREVIEW_CHARACTERS)
    .join('')
    .toWellFormed();
