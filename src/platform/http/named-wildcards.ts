import type { FastifyInstance } from 'fastify';

export const REST_OF_PATH = 'path';

/** Calls what a route of the API has for its `*` the parameter `path`: Fastify's router knows no names for it. */
export function nameWildcards(fastify: FastifyInstance): void {
  fastify.addHook('preValidation', ({ params, routeOptions: { url = '' } }, _reply, done) => {
    if (url.startsWith('/api/') && url.endsWith('*')) {
      const named = params as Record<string, unknown>;
      named[REST_OF_PATH] = named['*'];
      delete named['*'];
    }
    done();
  });
}
