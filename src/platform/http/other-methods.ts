import type { FastifyInstance, RouteOptions } from 'fastify';
import { AppError } from '../errors/app-error.js';
import { sendProblem } from '../errors/problem.filter.js';

/**
 * Answers with `method_not_allowed` where a path is known, and the method is none of its own. To be called before the first
 * route is declared.
 * @returns what is to be called after the last
 */
export function refuseOtherMethods(fastify: FastifyInstance): () => void {
  const known = new Map<string, { url: string; methods: Set<string> }>();
  let isDone = false;
  fastify.addHook('onRoute', ({ url, method }: RouteOptions) => {
    if (isDone) return;
    const path = known.get(shapeOf(url)) ?? { url, methods: new Set() };
    for (const each of [method].flat()) path.methods.add(each.toUpperCase());
    known.set(shapeOf(url), path);
  });
  // A plugin, since those before it may declare routes as well.
  return () =>
    void fastify.register((instance, _options, done) => {
      isDone = true;
      for (const { url, methods } of known.values()) refuse(instance, url, methods);
      done();
    });
}

function refuse(fastify: FastifyInstance, url: string, methods: Set<string>): void {
  const others = fastify.supportedMethods.filter((method) => !methods.has(method));
  if (others.length === 0) return;
  const allow = [...methods].join(', ');
  fastify.route({
    method: others,
    url,
    // Before the body is read, whatever it is.
    onRequest: (request, reply) => {
      void reply.header('Allow', allow);
      sendProblem(new AppError('method_not_allowed', `The path takes ${allow}.`), request, reply);
    },
    handler: () => undefined,
  });
}

/** Of two routes that differ in the names of their parameters only, the same. */
const shapeOf = (url: string) => url.replaceAll(/:\w+/g, ':');
