interface Ends {
  signals: AbortSignal[];
  afterMs?: number;
}

/**
 * Runs something that ends early when one of the signals aborts or the time is over, and lets go of both afterwards.
 * (`AbortSignal.any` would stay registered with signals that live as long as the server.)
 */
export async function withSignals<T>(
  { signals, afterMs }: Ends,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = afterMs === undefined ? undefined : setTimeout(abort, afterMs);
  for (const signal of signals) {
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  }
  try {
    return await run(controller.signal);
  } finally {
    clearTimeout(timer);
    for (const signal of signals) signal.removeEventListener('abort', abort);
  }
}
