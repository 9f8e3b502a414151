import type { ServerConfig } from './platform/config/config.js';
import { type RunningServer, startServer } from './server.js';

/** Serves until SIGTERM or SIGINT, and resolves when everything has ended. A second signal hurries. */
export async function serveUntilSignalled(
  config: ServerConfig,
  { onReady, onStopping }: { onReady: (server: RunningServer) => void; onStopping?: () => void },
): Promise<void> {
  let server: RunningServer | null = null;
  let signals = 0;
  let stop: () => void = () => undefined;
  const stopped = new Promise<void>((resolve) => (stop = resolve));
  const onSignal = () => {
    signals += 1;
    stop();
    if (signals > 1) server?.hurry();
  };
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal);
  server = await startServer(config);
  if (signals === 0) onReady(server);
  await stopped;
  onStopping?.();
  await server.close();
}
