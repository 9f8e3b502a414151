import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyInstance } from 'fastify';
import { AppError } from '../errors/app-error.js';

const BYTE_ORDER_MARK = '\uFEFF';
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Bodies are JSON in UTF-8 (RFC 8259, 8.1), or they are refused. Fastify itself reads plain text as well, and puts U+FFFD in
 * place of what is no UTF-8: then a prompt would not be the one that was sent.
 */
export function readJsonBodies(fastify: FastifyInstance): void {
  // The validation pipe refuses such keys by name, over sockets as well.
  const parse = fastify.getDefaultJsonParser('ignore', 'ignore');
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser<Buffer>('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    try {
      requireReadable(request.headers);
      void parse(request, decode(body), done);
    } catch (error) {
      done(error as Error);
    }
  });
}

/** It would be read as if it were plain UTF-8, and be taken for broken. */
function requireReadable(headers: IncomingHttpHeaders): void {
  const { 'content-encoding': encoding = 'identity', 'content-type': type = '' } = headers;
  if (encoding.trim().toLowerCase() !== 'identity')
    throw new AppError('media_type_unsupported', 'Send the body as it is, without a Content-Encoding.');
  const charset = /;\s*charset\s*=\s*"?([^\s";]*)/i.exec(type)?.[1] ?? 'utf-8';
  if (!/^utf-?8$/i.test(charset))
    throw new AppError('media_type_unsupported', 'Send the body in UTF-8, and say no other charset.');
}

function decode(body: Buffer): string {
  const text = decodeUtf8(body);
  if (text.startsWith(BYTE_ORDER_MARK))
    throw new AppError('invalid_json', 'The body begins with a byte order mark. Send it without.');
  return text;
}

function decodeUtf8(body: Buffer): string {
  try {
    return decoder.decode(body);
  } catch (cause) {
    throw new AppError('invalid_json', 'The body is not valid UTF-8.', { cause });
  }
}
