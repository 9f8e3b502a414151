import type { IncomingMessage } from 'node:http';
import { type ErrorAnswer, errorAnswer } from './answer.js';
import { type Standing, standingOf } from './conversation.js';
import { type Errand, errandOf } from './errand.js';
import { InvalidBodyError, isRecord, type MessagesBody, readMessagesBody } from './request-body.js';

/** What a request wants, once it has been understood. `bytes` is the size of its body. */
export type Question = { readonly body: unknown } & (
  | { purpose: 'turn'; messages: MessagesBody; standing: Standing; bytes: number }
  | { purpose: Errand; messages: MessagesBody; bytes: number }
  | { purpose: 'count_tokens'; bytes: number }
  /** `problem` is null for a `HEAD`, which wants nothing but an answer. */
  | { purpose: 'other'; problem: ErrorAnswer | null }
);

/**
 * What a request is for. Only a `turn` goes on with somebody's conversation and reaches the script; the Claude CLI's
 * own errands are answered without it. `other` is what the model cannot be asked: `HEAD /`, and whatever is refused.
 */
export type Purpose = Question['purpose'];

/** A body that has been read; null if it is larger than the API takes. */
type RequestBytes = Buffer | null;

const MOST_BODY_BYTES = 32 * 1024 * 1024;

/** Reads a request to its end. Rejects if the client leaves before that. */
export async function readBytes(request: IncomingMessage): Promise<RequestBytes> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes <= MOST_BODY_BYTES) chunks.push(chunk);
  }
  return bytes <= MOST_BODY_BYTES ? Buffer.concat(chunks) : null;
}

/** Understands a request, or says how the API would refuse it. @param apiKey the only one accepted, if any */
export function understand(
  request: IncomingMessage,
  raw: RequestBytes,
  apiKey: string | undefined,
): Question {
  const route = routeOf(request);
  const body = parseJson(raw?.toString() ?? '');
  const refuse = (problem: ErrorAnswer): Question => ({ purpose: 'other', body, problem });

  if (route === 'ping') return { purpose: 'other', body, problem: null };
  if (apiKey !== undefined && apiKeyOf(request) !== apiKey) {
    return refuse(errorAnswer(401));
  }
  if (route === 'unknown') return refuse(errorAnswer(404, { message: `Not found: ${request.url ?? ''}` }));
  if (raw === null) return refuse(errorAnswer(413, { message: 'The body exceeds 32 MB.' }));
  if (body === undefined) return refuse(errorAnswer(400, { message: 'The body is not valid JSON.' }));
  try {
    const messages = readMessagesBody(body, { maxTokens: route === 'messages' });
    if (route === 'count_tokens') return { purpose: route, body, bytes: raw.length };
    const errand = errandOf(messages, request.headers['user-agent'] ?? '');
    if (errand) return { purpose: errand, body, bytes: raw.length, messages };
    return { purpose: 'turn', body, bytes: raw.length, messages, standing: standingOf(messages.messages) };
  } catch (error) {
    if (error instanceof InvalidBodyError) return refuse(errorAnswer(400, { message: error.message }));
    throw error;
  }
}

/** From `x-api-key`, else from `authorization: Bearer`. */
export function apiKeyOf({ headers }: IncomingMessage): string | null {
  const key = headers['x-api-key'];
  if (typeof key === 'string') return key;
  return /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? null;
}

/** The model that a body names, also one that is refused. */
export function modelIn(body: unknown): string | null {
  return isRecord(body) && typeof body.model === 'string' ? body.model : null;
}

function routeOf({ method, url = '' }: IncomingMessage): 'ping' | 'messages' | 'count_tokens' | 'unknown' {
  if (method === 'HEAD') return 'ping';
  const [path] = url.split('?');
  if (method === 'POST' && path === '/v1/messages') return 'messages';
  if (method === 'POST' && path === '/v1/messages/count_tokens') return 'count_tokens';
  return 'unknown';
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
