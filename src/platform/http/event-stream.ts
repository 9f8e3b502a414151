import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FastifyReply } from 'fastify';
import { LATE, orLate } from '../timing/or-late.js';

const KEEP_ALIVE_MS = 15_000;
const RECONNECT_MS = 1_000;

interface StreamedEvent {
  seq: number;
  type: string;
}

interface EventStream {
  /** Opens the events; they must end when the signal aborts. */
  open: (signal: AbortSignal) => Promise<AsyncGenerator<StreamedEvent, void, undefined>>;
  clientGone: AbortSignal;
  /** How long the first bytes wait, so that what the request has set going is not kept waiting for them. */
  giveWayMs?: number;
  /** Resets the connection, so that the client comes again elsewhere: an end would look like the end of the events. */
  reset: AbortSignal;
}

/**
 * Answers with server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), no faster than the
 * client takes them.
 */
export async function sendEventStream(
  reply: FastifyReply,
  { open, clientGone, giveWayMs = 0, reset }: EventStream,
): Promise<Readable> {
  const controller = new AbortController();
  const stop = () => controller.abort();
  const onReset = () => {
    stop();
    reply.raw.destroy();
  };
  const events = await open(controller.signal);
  clientGone.addEventListener('abort', stop, { once: true });
  reset.addEventListener('abort', onReset, { once: true });
  void reply
    .type('text/event-stream; charset=utf-8')
    .header('Cache-Control', 'no-store')
    .header('X-Accel-Buffering', 'no');
  const stream = Readable.from(frames(events, giveWayMs), { objectMode: false });
  stream.once('close', () => {
    stop();
    clientGone.removeEventListener('abort', stop);
    reset.removeEventListener('abort', onReset);
  });
  if (clientGone.aborted) stop();
  if (reset.aborted) onReset();
  return stream;
}

async function* frames(
  events: AsyncGenerator<StreamedEvent, void, undefined>,
  giveWayMs: number,
): AsyncGenerator<string, void, undefined> {
  try {
    let next = events.next();
    // Heard below, be it that it fails before.
    next.catch(() => undefined);
    if (giveWayMs > 0) await sleep(giveWayMs);
    yield `retry: ${RECONNECT_MS}\n\n`;
    for (;;) {
      const result = await orLate(next, KEEP_ALIVE_MS);
      if (result === LATE) {
        yield ': keep-alive\n\n';
        continue;
      }
      if (result.done) return;
      const { seq, type } = result.value;
      yield `id: ${seq}\nevent: ${type}\ndata: ${JSON.stringify(result.value)}\n\n`;
      next = events.next();
    }
  } finally {
    // Who has given an event, and is asked for no more, hears of no abort. Not waited for: the end of the stream is what aborts.
    void events.return().catch(() => undefined);
  }
}
