/** What a promise that takes too long gives. */
export const LATE = Symbol('late');

/**
 * What the promise gives, or `LATE` when the time is over first. Nobody listens to it after that, not even if it fails.
 * An answer that came in while this process was busy with something else is not late: it is read before the time is up.
 */
export async function orLate<T>(promise: Promise<T>, afterMs: number): Promise<T | typeof LATE> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<typeof LATE>((resolve) => {
    timer = setTimeout(() => setImmediate(resolve, LATE), afterMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What the promise gives. @throws Error `Command timed out`, as Redis's client words it, when the time is over first */
export async function inTime<T>(promise: Promise<T>, ms: number): Promise<T> {
  const given = await orLate(promise, ms);
  if (given === LATE) throw new Error('Command timed out');
  return given;
}
