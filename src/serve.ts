import type { ServerConfig } from './platform/config/config.js';
import { type RunningServer, startServer } from './server.js';
import type { StopSignals } from './stop-signals.js';

interface Announcements {
  onReady: (server: RunningServer) => void;
  onStopping?: () => void;
}

/** Serves until a signal says to stop, and resolves when everything has ended. A second signal hurries. */
export async function serve(config: ServerConfig, stop: StopSignals, announce: Announcements): Promise<void> {
  const server = await startServer(config, stop.signal).catch((error: unknown) => {
    if (stop.wasGiven && error instanceof Error && error.name === 'AbortError') return null;
    throw error;
  });
  if (!server) return;
  stop.whenRepeated(() => server.hurry());
  if (!stop.wasGiven) announce.onReady(server);
  await stop.first;
  announce.onStopping?.();
  await server.close();
}
