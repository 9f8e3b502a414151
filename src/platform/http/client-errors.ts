import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { v7 as uuid } from 'uuid';
import { AppError, problemOf } from '../errors/app-error.js';

interface ClientError extends Error {
  code?: string;
}

/** Answers what never became a request that a route could see: as any other error, and then the connection is over. */
export function answerClientError(error: ClientError, socket: Socket): void {
  // An answer that is on its way must not get another in its middle.
  const { _httpMessage: answering } = socket as { _httpMessage?: ServerResponse | null };
  if (error.code === 'ECONNRESET' || !socket.writable || answering?.headersSent === true) {
    socket.destroy();
    return;
  }
  const problem = problemOf(toAppError(error), { instance: null, requestId: uuid() });
  const body = JSON.stringify(problem);
  const head = [
    `HTTP/1.1 ${problem.status} ${REASONS[problem.status] ?? 'Bad Request'}`,
    'Content-Type: application/problem+json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ];
  // Whoever sends a byte at a time would also take its time to leave.
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}

const REASONS: Record<number, string> = { 408: 'Request Timeout', 431: 'Request Header Fields Too Large' };

function toAppError(cause: ClientError): AppError {
  switch (cause.code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new AppError('request_timeout', 'The request did not arrive in time.', { cause });
    case 'HPE_HEADER_OVERFLOW':
      return new AppError('headers_too_large', 'The headers of a request may have 16 KiB together.', {
        cause,
      });
    default:
      return new AppError('bad_request', 'This is not an HTTP request that can be read.', { cause });
  }
}
