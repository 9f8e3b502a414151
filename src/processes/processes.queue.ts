import { InjectQueue } from '@nestjs/bull';
import { Injectable, Logger } from '@nestjs/common';
import type { JobOptions, Queue } from 'bull';
import { z } from 'zod';
import { AppError } from '../platform/errors/app-error.js';
import { inTime } from '../platform/timing/or-late.js';

export const PROCESSES_QUEUE = 'processes';

/** A wake-up: a process waits for a slot. Which one the slot takes is the database's say. */
export const ProcessJobSchema = z.object({ processId: z.uuid() });
export type ProcessJob = z.output<typeof ProcessJobSchema>;

/** Bull would wait for Redis for ever. */
const ANSWER_TIMEOUT_MS = 1_000;

export interface WakeUps {
  waiting: number;
  active: number;
  delayed: number;
}

interface WaitingProcess {
  id: string;
  /** It may not run before. */
  afterMs?: number;
}

@Injectable()
export class ProcessesQueue {
  private readonly logger = new Logger(ProcessesQueue.name);
  private isSweeping = false;

  constructor(@InjectQueue(PROCESSES_QUEUE) private readonly queue: Queue<ProcessJob>) {}

  /**
   * Wakes a slot for each of the processes. Never fails: what does not get through is dispatched again by the sweep. Bull waits
   * for Redis for ever, and what waits there is sent when it is back.
   */
  async dispatch(waiting: WaitingProcess[]): Promise<void> {
    if (waiting.length === 0) return;
    try {
      await this.add(waiting, ({ afterMs = 0 }) => ({ delay: afterMs }));
    } catch (err) {
      this.logger.warn({ err }, 'Wake-ups did not get through; the sweep sends them again.');
    }
  }

  /**
   * Makes up for wake-ups that a crash or a flushed Redis has lost: as many as there are processes that could run, and not one
   * for each of them. A wake-up may have been spent on another process than its own.
   */
  async sweep(eligible: WaitingProcess[]): Promise<void> {
    if (this.isSweeping || eligible.length === 0) return;
    this.isSweeping = true;
    try {
      const missing = eligible.length - (await this.queue.getWaitingCount());
      if (missing > 0) await this.add(eligible.slice(0, missing), () => ({}));
    } catch (err) {
      this.logger.warn({ err }, 'The wake-ups could not be counted; the next sweep tries again.');
    } finally {
      this.isSweeping = false;
    }
  }

  /** Null while Redis does not answer. */
  async isPaused(): Promise<boolean | null> {
    return inTime(this.queue.isPaused(), ANSWER_TIMEOUT_MS).catch(() => null);
  }

  /** Null while Redis does not answer. */
  async countWakeUps(): Promise<WakeUps | null> {
    const counting = this.queue.getJobCounts();
    const counts = await inTime(counting, ANSWER_TIMEOUT_MS).catch(() => null);
    // What a paused queue holds back waits as well: Bull's types do not know the count.
    const { paused = 0 } = (counts ?? {}) as { paused?: number };
    return counts && { waiting: counts.waiting + paused, active: counts.active, delayed: counts.delayed };
  }

  /** On every server: no slot is woken any more, what runs goes on. @throws AppError `unavailable` */
  async pause(): Promise<void> {
    this.requireRedis();
    await inTime(this.queue.pause(), ANSWER_TIMEOUT_MS);
  }

  /** @throws AppError `unavailable` */
  async resume(): Promise<void> {
    this.requireRedis();
    await inTime(this.queue.resume(), ANSWER_TIMEOUT_MS);
  }

  // A command would be kept, and carried out some time after it was answered with an error.
  private requireRedis(): void {
    if (this.queue.client.status !== 'ready') throw new AppError('unavailable', 'Redis does not answer.');
  }

  private async add(
    waiting: WaitingProcess[],
    options: (process: WaitingProcess) => JobOptions,
  ): Promise<void> {
    // Not `addBulk`, whose transaction is two commands more, and a slot may wait for just this one.
    await Promise.all(
      waiting.map((process) =>
        this.queue.add(
          { processId: process.id },
          { attempts: 1, removeOnComplete: true, removeOnFail: true, ...options(process) },
        ),
      ),
    );
  }
}
