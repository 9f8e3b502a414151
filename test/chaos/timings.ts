/** The times that decide how fast the service notices a death, as the servers read them from their environment. */
export interface Timings {
  LEASE_TTL_MS: number;
  LEASE_HEARTBEAT_MS: number;
  LEASE_FENCE_MS: number;
  RECONCILER_INTERVAL_MS: number;
}

/** For the run that is part of `npm test`. */
export const SHORT: Timings = {
  LEASE_TTL_MS: 3000,
  LEASE_HEARTBEAT_MS: 1000,
  LEASE_FENCE_MS: 2000,
  RECONCILER_INTERVAL_MS: 500,
};

/** What the service does unless told. */
export const DEFAULT: Timings = {
  LEASE_TTL_MS: 15_000,
  LEASE_HEARTBEAT_MS: 5000,
  LEASE_FENCE_MS: 10_000,
  RECONCILER_INTERVAL_MS: 2000,
};

/** @param fallback where the environment does not say */
export function timingsFrom(environment: NodeJS.ProcessEnv, fallback: Timings): Timings {
  const read = (name: keyof Timings) => Number(environment[name] ?? fallback[name]);
  return {
    LEASE_TTL_MS: read('LEASE_TTL_MS'),
    LEASE_HEARTBEAT_MS: read('LEASE_HEARTBEAT_MS'),
    LEASE_FENCE_MS: read('LEASE_FENCE_MS'),
    RECONCILER_INTERVAL_MS: read('RECONCILER_INTERVAL_MS'),
  };
}
