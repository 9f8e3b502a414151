import { Inject, Injectable } from '@nestjs/common';
import type { Caller } from '../platform/access/caller.js';
import { CONFIG, type ServerConfig } from '../platform/config/config.js';
import { AppError } from '../platform/errors/app-error.js';
import { isStoreOutage } from '../platform/prisma/database-failure.js';
import { decodeCursor, toPage } from '../platform/http/keyset-cursor.js';
import { Lifecycle } from '../platform/health/lifecycle.js';
import { withSignals } from '../platform/http/with-signals.js';
import { SessionsEvents } from '../sessions/sessions.events.js';
import { ProcessChannel } from './process-channel.js';
import type { ProcessEvent, ProcessEventPage } from './process-events.schemas.js';
import { ProcessEndingsRepository } from './process-endings.repository.js';
import { ProcessFollower } from './process-follower.js';
import { ProcessLogRepository } from './process-log.repository.js';
import type { EventsQuery, ListProcessesQuery } from './process-queries.schemas.js';
import { ProcessRetentionRepository } from './process-retention.repository.js';
import { toProcess, toSummary } from './process-view.js';
import { ProcessesRepository } from './processes.repository.js';
import { isEnded, type Process, type ProcessPage } from './processes.schemas.js';
import { QueuePlacesRepository } from './queue-places.repository.js';

const MAX_PAGE_BYTES = 8 * 1024 * 1024;

export interface Wait {
  /** How long the caller would wait; null for as long as the server lets it. */
  waitMs: number | null;
  clientGone: AbortSignal;
}

/** Finds, cancels and reads processes, for those they belong to. */
@Injectable()
export class ProcessesService {
  constructor(
    @Inject(CONFIG) private readonly config: ServerConfig,
    private readonly lifecycle: Lifecycle,
    private readonly processes: ProcessesRepository,
    private readonly log: ProcessLogRepository,
    private readonly endings: ProcessEndingsRepository,
    private readonly retention: ProcessRetentionRepository,
    private readonly places: QueuePlacesRepository,
    private readonly channel: ProcessChannel,
    private readonly follower: ProcessFollower,
    private readonly sessions: SessionsEvents,
  ) {}

  /** @throws AppError `process_not_found`, also for what is another's */
  async find(caller: Caller, id: string): Promise<Process> {
    const row = await this.processes.findOwned(ownerFor(caller), id);
    if (!row) throw new AppError('process_not_found', `There is no process ${id}.`);
    const places = await this.places.find(row.status === 'pending' ? [id] : []);
    return toProcess(row, places.get(id)?.position ?? null);
  }

  /**
   * The process, whose log must have what comes after the seq that the caller means to go on from.
   * @throws AppError `cursor_invalid`, `events_pruned`
   */
  async findAt(caller: Caller, id: string, after: number | undefined): Promise<Process> {
    const process = await this.find(caller, id);
    if (after === undefined) return process;
    if (after > process.lastSeq)
      throw new AppError('cursor_invalid', `The log has come to ${process.lastSeq}, not to ${after}.`);
    if (after < process.firstSeq - 1) throw eventsPruned(process.firstSeq);
    return process;
  }

  async list(caller: Caller, query: ListProcessesQuery): Promise<ProcessPage> {
    if (query.userId !== undefined && !caller.isAdministrator)
      throw new AppError('forbidden', 'Only administrators list the processes of others.');
    const { limit, cursor, createdAfter, createdBefore, status, sessionId, metadata } = query;
    const filter = {
      userId: query.userId ?? caller.userId,
      status,
      sessionId,
      metadata,
      createdAfter: createdAfter === undefined ? undefined : new Date(createdAfter),
      createdBefore: createdBefore === undefined ? undefined : new Date(createdBefore),
    };
    const rows = await this.processes.list(
      filter,
      cursor === undefined ? null : decodeCursor(cursor),
      limit + 1,
    );
    const pending = rows.filter((row) => row.status === 'pending');
    const places = await this.places.find(pending.map(({ id }) => id));
    return toPage(rows, limit, (row) => toSummary(row, places.get(row.id)?.position ?? null));
  }

  /** Cancels what waits at once; asks the worker of what runs. What has ended stays as it is. */
  async cancel(caller: Caller, id: string): Promise<Process> {
    const process = await this.find(caller, id);
    if (isEnded(process)) return process;
    const cancelled = await this.endings.cancel(id, caller.userId);
    if (cancelled.kind === 'ended') this.channel.publishEvents(id, cancelled.events);
    if (cancelled.kind === 'requested') this.channel.publishCommand(id);
    return this.find(caller, id);
  }

  /**
   * Deletes what the caller wrote and what came of it, for good. What is left says that the process was.
   * @throws AppError `process_not_ended`
   */
  async deleteContent(caller: Caller, id: string): Promise<Process> {
    await this.find(caller, id);
    const left = await this.retention.deleteContent(id);
    if (!left) throw new AppError('process_not_ended', 'Cancel the process, or wait for its end.');
    // A CLI that stays with the session remembers it.
    this.sessions.tellRemoved(left.sessionId);
    return toProcess(left, null);
  }

  /** A page of the log. */
  async readEvents(
    caller: Caller,
    id: string,
    { after, limit, include }: EventsQuery,
  ): Promise<ProcessEventPage> {
    const process = await this.findAt(caller, id, after);
    const events = await this.log.read(id, after, { limit, maxBytes: MAX_PAGE_BYTES });
    requireNoGap(events[0], after);
    const last = events.at(-1)?.seq ?? after;
    const isAtEnd = isEnded(process) && last >= process.lastSeq;
    return {
      items: include === 'raw' ? events : events.map(withoutLine),
      nextCursor: isAtEnd ? null : last,
      lastSeq: Math.max(process.lastSeq, last),
    };
  }

  /** The log after a seq, first what is there and then live, to the terminal event or until the signal aborts. */
  async follow(
    caller: Caller,
    id: string,
    { after, include }: { after: number; include?: 'raw' | undefined },
    signal: AbortSignal,
  ): Promise<AsyncGenerator<ProcessEvent, void, undefined>> {
    return this.followFrom(await this.findAt(caller, id, after), { after, include }, signal);
  }

  /** The same for a process that is at hand, and the caller's. @param known see ProcessFollower */
  followFrom(
    process: Process,
    { after, known, include }: { after: number; known?: ProcessEvent[]; include?: 'raw' | undefined },
    signal: AbortSignal,
  ): AsyncGenerator<ProcessEvent, void, undefined> {
    if (isEnded(process) && after === process.lastSeq) return nothing();
    const events = withoutGap(this.follower.follow(process.id, after, signal, known), after);
    return include === 'raw' ? events : withoutLines(events);
  }

  /** The process once it has ended; as it is then, when the wait is over or nobody waits any longer. */
  async waitForEnd(
    caller: Caller,
    process: Process,
    { waitMs, clientGone }: Wait,
    known: ProcessEvent[] = [],
  ): Promise<Process> {
    if (isEnded(process)) return process;
    const afterMs = Math.min(waitMs ?? Infinity, this.config.EXECUTE_MAX_WAIT_MS);
    try {
      const ending = await withSignals(
        { signals: [clientGone, this.lifecycle.drainSignal], afterMs },
        (signal) => this.follower.untilEnd(process.id, process.lastSeq, signal, known),
      );
      return ending?.process ?? (await this.find(caller, process.id));
    } catch (error) {
      // An error would say that there is no process. The caller asks again for it, and is told how it stands then.
      if (isStoreOutage(error)) return process;
      throw error;
    }
  }

  async findWaiting(caller: Caller, id: string, wait: Wait): Promise<Process> {
    const process = await this.find(caller, id);
    return wait.waitMs === 0 ? process : this.waitForEnd(caller, process, wait);
  }
}

/** Whose processes the caller may see: null for everybody's. */
const ownerFor = (caller: Caller) => (caller.isAdministrator ? null : caller.userId);

/** Without its line a raw event still takes its place: the numbers that a reader sees have no gap. */
const withoutLine = (event: ProcessEvent): ProcessEvent =>
  event.type === 'raw' ? { ...event, line: null } : event;

const eventsPruned = (firstSeq: number) =>
  new AppError('events_pruned', `The first event that is left of the log is ${firstSeq}.`);

/** What was pruned while it was being read leaves a reader with a jump. @throws AppError `events_pruned` */
function requireNoGap(next: ProcessEvent | undefined, after: number): void {
  if (next && next.seq > after + 1) throw eventsPruned(next.seq);
}

async function* withoutGap(events: AsyncGenerator<ProcessEvent, void, undefined>, after: number) {
  let last = after;
  for await (const event of events) {
    requireNoGap(event, last);
    last = event.seq;
    yield event;
  }
}

async function* nothing(): AsyncGenerator<never, void, undefined> {
  // The log has ended, and its reader has it all.
}

async function* withoutLines(events: AsyncGenerator<ProcessEvent, void, undefined>) {
  for await (const event of events) yield withoutLine(event);
}
