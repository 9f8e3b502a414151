import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Answer, errorAnswer } from './answer.js';
import { answerErrand } from './errand.js';
import { estimateTokens } from './message-stream.js';
import { apiKeyOf, modelIn, type Question, readBytes, understand } from './question.js';
import { type Reply, sendAnswer, sendError, sendJson, untilAborted } from './reply.js';
import type { RequestLog } from './request-log.js';
import type { Script } from './script.js';

/** What an exchange needs to know of the server that it belongs to. */
interface Desk {
  readonly log: RequestLog;
  readonly script: Script;
  /** The only key that is accepted; undefined accepts all. */
  readonly apiKey: string | undefined;
  /** Whether the server is breaking off its answers. */
  readonly isClosing: () => boolean;
}

/**
 * Reads one HTTP request, logs it and answers it. Resolves when all is sent or the connection is gone.
 * A client that leaves before its request is read leaves no trace.
 */
export async function exchange(
  request: IncomingMessage,
  response: ServerResponse,
  desk: Desk,
): Promise<void> {
  const at = Date.now();
  const signal = goneSignal(response);
  const raw = await readBytes(request).catch(() => 'lost' as const);
  if (raw === 'lost') return;
  const question = understand(request, raw, desk.apiKey);
  const settle = desk.log.add({
    at,
    method: request.method ?? '',
    path: request.url ?? '',
    headers: request.headers,
    purpose: question.purpose,
    model: modelIn(question.body),
    prompt: question.purpose === 'turn' ? question.standing.prompt : null,
    body: question.body,
    apiKey: apiKeyOf(request),
  });
  try {
    await answer(question, { response, signal, settle }, desk.script);
  } catch (error) {
    // An answer that cannot be sent breaks off; it must not end the process that all the others are answered by.
    if (!signal.aborted) response.destroy(error instanceof Error ? error : undefined);
    settle(desk.isClosing() || !signal.aborted ? 'cut' : 'client_gone');
  }
}

async function answer(question: Question, reply: Reply, script: Script): Promise<void> {
  if (question.purpose === 'other') {
    if (question.problem) sendError(question.problem, reply);
    else sendNothing(reply);
    return;
  }
  if (question.purpose === 'count_tokens') {
    sendJson({ input_tokens: estimateTokens(question.bytes) }, reply);
    return;
  }
  const { messages, bytes } = question;
  const terms = { model: messages.model, stream: messages.stream, requestBytes: bytes };
  const answered =
    question.purpose === 'turn'
      ? await Promise.race([ask(script, question, reply.signal), untilAborted(reply.signal)])
      : answerErrand(question.purpose);
  await sendAnswer(answered, reply, terms);
}

/** Asks the script; one that throws has answered with a 500. */
async function ask(
  script: Script,
  { messages, standing }: Extract<Question, { purpose: 'turn' }>,
  signal: AbortSignal,
): Promise<Answer> {
  const { model, messages: conversation, tools, body } = messages;
  const { turn, lastToolResults } = standing;
  const prompt = standing.prompt ?? '';
  try {
    return await script({
      prompt,
      model,
      messages: conversation,
      tools,
      turn,
      lastToolResults,
      body,
      signal,
    });
  } catch (error) {
    return errorAnswer(500, { message: `The script failed: ${String(error)}` });
  }
}

function sendNothing({ response, settle }: Reply): void {
  settle('answered');
  response.writeHead(200).end();
}

/** Aborted when the connection closes before the response is over. */
function goneSignal(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) gone.abort();
  });
  return gone.signal;
}
