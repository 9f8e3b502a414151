import type { ProcessEvent } from '../../src/processes/process-events.schemas.js';
import { isEnded, type Process } from '../../src/processes/processes.schemas.js';
import type { Reading, Submission } from './work-schedule.js';

/** What callers have been told of one submission. */
export interface SubmissionRecord {
  submission: Submission;
  /** The ids that answers named, with who said so. */
  accepted: { processId: string; at: number; by: string }[];
  /** Answers with an error status: they say that no process was made. */
  refused: { status: number; code: string; at: number; by: string }[];
  /** No answer: nobody knows what became of it. */
  broken: { reason: string; at: number; by: string }[];
  /** Requests that have no answer yet. */
  open: Set<string>;
}

/** What one reader has seen of a log, over all its connections. */
export interface Transcript {
  processId: string;
  reading: Reading;
  events: ProcessEvent[];
  connections: number;
  /** Where it reads now, for the failure message. */
  at: string;
  isOver: boolean;
  problems: string[];
}

/** A terminal state that somebody was shown. It must never change. */
export interface SeenEnding {
  processId: string;
  status: string;
  finishedAt: string | null;
  by: string;
}

export interface CancelRecord {
  processId: string;
  askedAt: number;
  answer: { httpStatus: number; status: string; cancelRequestedAt: string | null; at: number } | null;
}

/** Everything that callers were told in one run. */
export class Ledger {
  readonly submissions: SubmissionRecord[] = [];
  readonly transcripts: Transcript[] = [];
  readonly endings: SeenEnding[] = [];
  readonly cancels: CancelRecord[] = [];
  /** What no caller should ever meet. */
  readonly problems: string[] = [];

  open(submission: Submission): SubmissionRecord {
    const record: SubmissionRecord = { submission, accepted: [], refused: [], broken: [], open: new Set() };
    this.submissions.push(record);
    return record;
  }

  /** Whatever shows a process may show its end. */
  saw(process: Process, by: string): void {
    const { id: processId, status, finishedAt } = process;
    if (isEnded(process)) this.endings.push({ processId, status, finishedAt, by });
  }
}
