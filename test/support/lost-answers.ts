/**
 * A repository whose every call does its work, and then fails for its caller as if the connection had broken before the answer:
 * what Temporal's tests call ExecuteAndTimeout.
 * @param isLost whether this call's answer is
 */
export function losingAnswers<Repository extends object>(
  repository: Repository,
  isLost: (method: string) => boolean,
): Repository {
  return new Proxy(repository, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== 'function') return member;
      return async (...given: unknown[]): Promise<unknown> => {
        const answer: unknown = await Reflect.apply(member, target, given);
        if (isLost(String(name)))
          throw Object.assign(new Error('Connection terminated'), { code: 'ECONNRESET' });
        return answer;
      };
    },
  });
}

/** Loses the first answer of each method of these names. */
export function onceEach(...methods: string[]): (method: string) => boolean {
  const left = new Set(methods);
  return (method) => left.delete(method);
}
