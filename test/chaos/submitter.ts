import { setTimeout as sleep } from 'node:timers/promises';
import type { Problem } from '../../src/platform/errors/errors.schemas.js';
import type { ProcessEvent } from '../../src/processes/process-events.schemas.js';
import { isEnded, type Process } from '../../src/processes/processes.schemas.js';
import type { Answer, ApiClient } from '../support/api-client.js';
import { readEventStream } from '../support/event-stream-reader.js';
import type { Callers } from './callers.js';
import { askOnce } from './socket-call.js';
import type { Ledger, SubmissionRecord } from './ledger.js';
import type { Submission } from './work-schedule.js';

const AGAIN_MS = 250;
const BOUNDED_WAIT_S = 1;
/** A refusal that says: come again, or: look whether it is there. Every other one is a broken promise to a well-formed request. */
const PASSING = new Set([429, 503, 504]);
/** Who hears this knows that nothing was made, and need not have a key to come again. */
const SURELY_NOTHING = new Set(['draining', 'ECONNREFUSED']);

/** What one request came to. */
type Outcome =
  | { kind: 'accepted'; process: Process }
  | { kind: 'refused'; status: number; code: string }
  | { kind: 'broken'; code: string; reason: string };

interface SubmitterOptions {
  callers: Callers;
  ledger: Ledger;
  /** Aborts when nothing is sent again any more. */
  giveUp: AbortSignal;
}

/**
 * Submits as callers do: under an idempotency key several times at once, and again until it is accepted; without one again
 * only where surely nothing was made.
 */
export class Submitter {
  constructor(private readonly options: SubmitterOptions) {}

  /** Resolves when every request has its answer. */
  async submit(submission: Submission, onAccepted: (processId: string) => void): Promise<void> {
    const record = this.options.ledger.open(submission);
    const copies = Array.from({ length: Math.max(1, submission.copies) }, (_, copy) =>
      this.submitCopy(record, copy, onAccepted),
    );
    await Promise.all(copies);
  }

  private async submitCopy(
    record: SubmissionRecord,
    copy: number,
    onAccepted: (processId: string) => void,
  ): Promise<void> {
    const { submission } = record;
    const isKeyed = submission.copies > 0;
    for (let attempt = 0; ; attempt += 1) {
      const outcome = await this.send(record, submission.api + copy + attempt);
      if (outcome.kind === 'accepted' && record.accepted.length === 1) onAccepted(outcome.process.id);
      if (outcome.kind === 'accepted' || this.options.giveUp.aborted) return;
      if (!isKeyed && !SURELY_NOTHING.has(outcome.code)) return;
      await sleep(AGAIN_MS, undefined, { signal: this.options.giveUp }).catch(() => undefined);
    }
  }

  private async send(record: SubmissionRecord, api: number): Promise<Outcome> {
    const { client, name } = this.options.callers.at(api);
    const { mark, door } = record.submission;
    const by = `${door} at ${name}`;
    const request = `${by}, sent ${new Date().toISOString()}`;
    record.open.add(request);
    const outcome = await this.knock(client, record.submission).catch(brokenBy);
    record.open.delete(request);
    const at = Date.now();
    if (outcome.kind === 'broken') record.broken.push({ reason: outcome.reason, at, by });
    if (outcome.kind === 'refused') {
      const { status, code } = outcome;
      record.refused.push({ status, code, at, by });
      if (!PASSING.has(status))
        this.options.ledger.problems.push(`${mark} was answered ${status} ${code}: ${by}.`);
    }
    if (outcome.kind === 'accepted') {
      record.accepted.push({ processId: outcome.process.id, at, by });
      this.options.ledger.saw(outcome.process, by);
    }
    return outcome;
  }

  private async knock(client: ApiClient, submission: Submission): Promise<Outcome> {
    const { prompt, retry, door, copies, mark } = submission;
    const body = { prompt, permissionMode: 'acceptEdits', ...(retry ? { retry } : {}) };
    const headers: Record<string, string> = copies > 0 ? { 'Idempotency-Key': mark } : {};
    const post = (path: string, more: Record<string, string> = {}) =>
      client.request<Process>('POST', `/api/v1/claude/execute${path}`, body, { ...headers, ...more });
    switch (door) {
      case 'async':
        return acceptedOr(await post('/async'));
      case 'waiting':
        return this.waited(await post(''), mark);
      case 'bounded':
        return this.waited(await post('', { Prefer: `wait=${BOUNDED_WAIT_S}` }), mark);
      case 'sse':
        return this.firstOfStream(client, body, headers);
      case 'socket': {
        const key = copies > 0 ? { idempotencyKey: mark } : {};
        const answer = await askOnce(client, 'claude:execute', { ...body, ...key });
        return answer.ok ? { kind: 'accepted', process: answer.process } : refusal(answer.error);
      }
    }
  }

  /** Who waits is told by the status whether it has ended: 200, or not: 202. */
  private waited(answer: Answer<Process>, mark: string): Outcome {
    const outcome = acceptedOr(answer);
    const { status, body } = answer;
    if (outcome.kind === 'accepted' && isEnded(body) !== (status === 200))
      this.options.ledger.problems.push(
        `${mark} was answered ${status} with a process that is ${body.status}.`,
      );
    return outcome;
  }

  /** The first event of an answer that is the event stream itself: `created`, which shows the process. */
  private async firstOfStream(
    client: ApiClient,
    body: unknown,
    headers: Record<string, string>,
  ): Promise<Outcome> {
    const leaving = new AbortController();
    const response = await client.fetch('/api/v1/claude/execute', {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'Content-Type': 'application/json', Accept: 'text/event-stream', ...headers },
      signal: leaving.signal,
    });
    try {
      if (response.status !== 200) return refusal((await response.json()) as Problem);
      for await (const { data } of readEventStream(response)) {
        const event = JSON.parse(data) as ProcessEvent;
        if (event.type === 'created') return { kind: 'accepted', process: event.process };
        return broken(`The first event was ${event.type} ${event.seq}.`);
      }
      return broken('The stream ended without an event.');
    } finally {
      leaving.abort();
    }
  }
}

const acceptedOr = ({ status, body }: Answer<Process>): Outcome =>
  status === 200 || status === 202
    ? { kind: 'accepted', process: body }
    : refusal(body as unknown as Problem);

const refusal = ({ status, code }: Problem): Outcome => ({ kind: 'refused', status, code });

const broken = (reason: string): Outcome => ({ kind: 'broken', code: '', reason });

function brokenBy(error: unknown): Outcome {
  const { message, cause } = error as { message?: string; cause?: { code?: string; message?: string } };
  const code = cause?.code ?? '';
  return { kind: 'broken', code, reason: [message, code || cause?.message].filter(Boolean).join(': ') };
}
