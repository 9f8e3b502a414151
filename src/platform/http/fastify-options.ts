import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyHelmetOptions } from '@fastify/helmet';
import { v7 as uuid } from 'uuid';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ServerConfig } from '../config/config.js';
import { sendProblem } from '../errors/problem.filter.js';
import { answerClientError } from './client-errors.js';
import { MAX_BODY_BYTES } from './limits.js';

/** How often the server looks for requests that take too long to arrive. */
const LATE_CHECK_MS = 5_000;
const LONGEST_UPLOAD_MS = 60 * 60_000;
const REQUEST_ID = /^[\w.-]{1,128}$/;

export const fastifyOptions = ({ TRUST_PROXY, REQUEST_TIMEOUT_MS }: ServerConfig) =>
  ({
    bodyLimit: MAX_BODY_BYTES,
    trustProxy: TRUST_PROXY.length > 0 ? TRUST_PROXY : false,
    // A caller's own id is kept where it is harmless.
    genReqId: ({ headers }: { headers: IncomingHttpHeaders }) => {
      const given = headers['x-request-id'];
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : uuid();
    },
    // A file must have arrived by then, and its answer may take longer. For other bodies see readStreamedBodies.
    requestTimeout: Math.max(LONGEST_UPLOAD_MS, REQUEST_TIMEOUT_MS),
    http: {
      headersTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: Math.min(LATE_CHECK_MS, REQUEST_TIMEOUT_MS),
    },
    clientErrorHandler: answerClientError,
    // A HEAD of an event stream would read the stream to its end for nobody.
    exposeHeadRoutes: false,
    // What Fastify refuses before it has found a route: a path that cannot be decoded.
    frameworkErrors: (error: Error, request: FastifyRequest, reply: FastifyReply) =>
      sendProblem(error, request, reply),
    // What still hangs on after the drain must not keep the server from ending.
    forceCloseConnections: true,
  }) as const;

export const helmetOptions: FastifyHelmetOptions = {
  contentSecurityPolicy: {
    directives: {
      // Swagger UI styles itself inline; its scripts are files of this server.
      'style-src': ["'self'", "'unsafe-inline'"],
      // The server itself speaks HTTP; whoever puts TLS in front says so there.
      'upgrade-insecure-requests': null,
    },
  },
  strictTransportSecurity: false,
};
