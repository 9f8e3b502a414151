import type { DynamicModule } from '@nestjs/common';
import { LoggerModule } from 'nestjs-pino';
import type { ServerConfig } from '../config/config.js';

/** Structured logs on standard output: events with fields, never a prompt, a token or an environment. */
export const loggingModule = (config: ServerConfig): DynamicModule =>
  LoggerModule.forRoot({
    pinoHttp: {
      level: config.LOG_LEVEL,
      redact: ['req.headers', 'res.headers', '*.password', '*.token', '*.apiKey'],
      serializers: {
        req: (request: { id: string; method: string; url: string }) => ({
          id: request.id,
          method: request.method,
          path: request.url.split('?', 1)[0],
        }),
        res: (response: { statusCode: number }) => ({ status: response.statusCode }),
      },
      // What failed is told by whoever answers; the error that would be made up here for each 5xx has no more to tell.
      customLogLevel: (_request, { statusCode }, error) =>
        error || (statusCode >= 500 && statusCode !== 503) ? 'error' : 'info',
      customErrorObject: (_request, _response, error: Error, value: { err: Error }) =>
        error.message.startsWith('failed with status code') ? { ...value, err: undefined } : value,
      autoLogging: { ignore: (request) => request.url?.startsWith('/health/') ?? false },
    },
  });
