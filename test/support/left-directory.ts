import { rm } from 'node:fs/promises';

/**
 * Removes what a server has left. What it had started may need a moment to be gone after a kill, and writes until then: so
 * everything that is there is removed again, for some seconds. (`rmSync` tries only the folder itself again.)
 */
export const removeLeft = (directory: string): Promise<void> =>
  rm(directory, { recursive: true, force: true, maxRetries: 14, retryDelay: 200 });
