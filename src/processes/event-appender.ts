import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, Logger } from '@nestjs/common';
import { isTransient } from '../platform/prisma/database-failure.js';
import { ProcessChannel } from './process-channel.js';
import { ProcessEndingsRepository } from './process-endings.repository.js';
import { ProcessLogRepository, type Run, type RunBatch } from './process-log.repository.js';
import { RunLog, STORE_RETRY_MS, unwritable } from './run-log.js';

/** Roughly, in UTF-16 units: what goes into one statement. A run that has more goes alone. */
const MAX_BATCH_EVENTS = 5_000;
/** How long what nobody waits for waits for more, so that it is one statement: less than a frame of a screen. */
const COMPANY_MS = 10;

interface Taken {
  log: RunLog;
  batch: RunBatch;
}

/**
 * Writes the logs of all the runs of a worker. An event of an idle log is written at once, unless it only goes on with a text;
 * what comes while a write is on its way, of whichever run, waits and goes together: the slower the database, the larger the
 * batches.
 */
@Injectable()
export class EventAppender {
  private readonly logger = new Logger(EventAppender.name);
  private readonly waiting = new Set<RunLog>();
  private isWriting = false;
  private company: NodeJS.Timeout | null = null;

  constructor(
    private readonly log: ProcessLogRepository,
    private readonly endings: ProcessEndingsRepository,
    private readonly channel: ProcessChannel,
  ) {}

  /** The log of a run that this worker has claimed. */
  open(
    run: Run & { lastSeq: number },
    { onCancelRequested, onLost }: { onCancelRequested: () => void; onLost: () => void },
  ): RunLog {
    return new RunLog({
      run,
      log: this.log,
      endings: this.endings,
      onWaiting: (log) => this.schedule(log),
      onCommitted: (events) => this.channel.publishEvents(run.processId, events),
      onCancelRequested,
      onLost,
    });
  }

  private schedule(log: RunLog): void {
    this.waiting.add(log);
    if (this.isWriting) return;
    if (log.isUrgent) void this.writeAll();
    else this.awaitCompany();
  }

  private awaitCompany(): void {
    this.company ??= setTimeout(() => void this.writeAll(), COMPANY_MS);
  }

  private async writeAll(): Promise<void> {
    if (this.company) clearTimeout(this.company);
    this.company = null;
    this.isWriting = true;
    do {
      const taken = this.take();
      try {
        await this.write(taken);
      } catch (error) {
        // Nothing that a retry could mend: the runs end as failures of ours.
        for (const { log } of taken) log.fail(error);
      }
      for (const { log } of taken) log.settle();
    } while ([...this.waiting].some(({ isUrgent }) => isUrgent));
    this.isWriting = false;
    if (this.waiting.size > 0) this.awaitCompany();
  }

  /** From whoever has waited longest, as much as one statement should hold. */
  private take(): Taken[] {
    const taken: Taken[] = [];
    let count = 0;
    for (const log of this.waiting) {
      if (count >= MAX_BATCH_EVENTS) break;
      this.waiting.delete(log);
      const batch = log.take();
      if (!batch) {
        // Its run has taken it for itself, to write it with its end.
        log.settle();
        continue;
      }
      taken.push({ log, batch });
      count += batch.events.length;
    }
    return taken;
  }

  private async write(taken: Taken[]): Promise<void> {
    const left = new Set(taken);
    for (;;) {
      for (const entry of left) if (entry.log.isBroken) left.delete(entry);
      if (left.size === 0) return;
      try {
        const appended = await this.log.append([...left].map(({ batch }) => batch));
        for (const entry of left) {
          const written = appended.get(entry.batch.run.processId);
          if (!written) continue;
          entry.log.wrote(written);
          left.delete(entry);
        }
        await this.explainMissing(left);
        return;
      } catch (error) {
        if (!isTransient(error)) return this.isolate([...left], error);
        this.logger.warn({ err: error }, 'The logs could not be written; trying again.');
        await sleep(STORE_RETRY_MS);
      }
    }
  }

  /** Either the run is lost, or an earlier try has written it and its answer was lost. What is explained is left no more. */
  private async explainMissing(left: Set<Taken>): Promise<void> {
    if (left.size === 0) return;
    const states = await this.log.findRuns([...left].map(({ batch }) => batch.run.processId));
    for (const entry of left) {
      const { log, batch } = entry;
      const { run, lastSeq, events } = batch;
      const state = states.get(run.processId);
      const isWritten =
        state?.status === 'running' && state.fence === run.fence && state.lastSeq === lastSeq + events.length;
      const bounds = { limit: events.length, maxBytes: Number.MAX_SAFE_INTEGER };
      if (!isWritten) log.lose();
      else log.wrote({ events: await this.log.read(run.processId, lastSeq, bounds), cancelRequested: false });
      left.delete(entry);
    }
  }

  /** Something in there cannot be written. Halves are tried until it stands alone; a marker takes its place. */
  private async isolate(taken: Taken[], error: unknown): Promise<void> {
    const [first, ...others] = taken;
    if (!first) return;
    if (others.length > 0) {
      const middle = Math.ceil(taken.length / 2);
      await this.write(taken.slice(0, middle));
      await this.write(taken.slice(middle));
      return;
    }
    const { log, batch } = first;
    const [event, ...more] = batch.events;
    if (more.length > 0) {
      const middle = Math.ceil(batch.events.length / 2);
      await this.write([{ log, batch: { ...batch, events: batch.events.slice(0, middle) } }]);
      const rest = {
        ...batch,
        lastSeq: batch.lastSeq + middle,
        events: batch.events.slice(middle),
        facts: {},
      };
      await this.write([{ log, batch: rest }]);
      return;
    }
    if (!event || isMarker(event)) {
      log.fail(error);
      return;
    }
    this.logger.error(
      { err: error, processId: batch.run.processId, type: event.type },
      'An event cannot be written; a marker takes its place.',
    );
    await this.write([{ log, batch: { ...batch, events: [unwritable(event)] } }]);
  }
}

const isMarker = (event: RunBatch['events'][number]) =>
  event.type === 'raw' && (event.line as { type?: unknown } | null)?.type === 'unwritable_event';
