import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Answer, type ErrorAnswer, errorAnswer, type MessageAnswer, statusOf } from './answer.js';
import { newId } from './ids.js';
import { durationMsOf, type Envelope, streamSteps, wholeMessage } from './message-stream.js';
import type { Outcome } from './request-log.js';

/** One reply under way. */
export interface Reply {
  readonly response: ServerResponse;
  /** Aborted when the client leaves or the server closes. */
  readonly signal: AbortSignal;
  /** Told the outcome just before the last byte, so that whoever has read it finds it in the log. */
  readonly settle: (outcome: Outcome) => void;
}

/**
 * Sends an answer to the end that it describes.
 * Rejects with an AbortError once `signal` is aborted; nothing is left waiting then.
 */
export async function sendAnswer(
  answer: Answer,
  reply: Reply,
  request: Omit<Envelope, 'id'> & { readonly stream: boolean },
): Promise<void> {
  if (answer.kind === 'hang') return untilAborted(reply.signal);
  if (answer.kind === 'error') {
    sendError(answer, reply);
    return;
  }
  const envelope = { ...request, id: newId('msg') };
  await (request.stream ? sendStream(answer, reply, envelope) : sendWhole(answer, reply, envelope));
}

/** Sends an error in Anthropic's shape: `{ type: 'error', error: { type, message }, request_id }`. */
export function sendError({ status, type, message, retryAfterS }: ErrorAnswer, reply: Reply): void {
  const retryAfter = retryAfterS === null ? {} : { 'retry-after': String(retryAfterS) };
  const requestId = newId('req');
  const error = { type: 'error', error: { type, message }, request_id: requestId };
  reply.settle('failed');
  reply.response
    .writeHead(status, { 'content-type': 'application/json', 'request-id': requestId, ...retryAfter })
    .end(JSON.stringify(error));
}

/** Sends a body of JSON with status 200. */
export function sendJson(body: unknown, reply: Reply): void {
  reply.settle('answered');
  reply.response
    .writeHead(200, { 'content-type': 'application/json', 'request-id': newId('req') })
    .end(JSON.stringify(body));
}

/** Never resolves; rejects once the signal is aborted. */
export function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const leave = () => reject(signal.reason as Error);
    if (signal.aborted) leave();
    else signal.addEventListener('abort', leave, { once: true });
  });
}

/** Events between two pauses leave in one write. */
async function sendStream(answer: MessageAnswer, reply: Reply, envelope: Envelope): Promise<void> {
  const { response, signal } = reply;
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    'request-id': newId('req'),
  });
  let unsent = '';
  let outcome: Outcome = 'answered';
  for (const step of streamSteps(answer, envelope)) {
    if (step.kind === 'cut') {
      cut(unsent, reply);
      return;
    }
    if (step.kind === 'event') {
      unsent += `event: ${step.event.type}\ndata: ${JSON.stringify(step.event)}\n\n`;
      if (step.event.type === 'error') outcome = 'failed';
    } else if (step.ms > 0) {
      response.write(unsent);
      unsent = '';
      await sleep(step.ms, undefined, { signal });
    }
  }
  reply.settle(outcome);
  response.end(unsent);
}

async function sendWhole(answer: MessageAnswer, reply: Reply, envelope: Envelope): Promise<void> {
  const ms = durationMsOf(answer);
  if (ms > 0) await sleep(ms, undefined, { signal: reply.signal });
  const message = wholeMessage(answer, envelope);
  switch (answer.break?.kind) {
    case undefined:
      sendJson(message, reply);
      break;
    case 'error':
      sendError(errorAnswer(statusOf(answer.break.type), answer.break), reply);
      break;
    case 'cut': {
      const json = JSON.stringify(message);
      reply.response.writeHead(200, { 'content-type': 'application/json' });
      cut(json.slice(0, json.length / 2), reply);
    }
  }
}

/** Destroys the connection once the last words are on their way. */
function cut(lastWords: string, { response, settle }: Reply): void {
  settle('cut');
  response.write(lastWords || '\n', () => response.destroy());
}
