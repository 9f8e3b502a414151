import type { TestStores } from './stores.js';

/** A process for which something does not hold that must, at any moment. */
export interface BrokenInvariant {
  id: string;
  what: string;
}

/** Looks at every process of a database: see docs/durability.md. */
export function findBrokenInvariants(query: TestStores['query']): Promise<BrokenInvariant[]> {
  return query(`
    WITH log AS (
      SELECT process_id AS id, count(*) AS events, min(seq) AS first, max(seq) AS last,
        count(*) FILTER (WHERE type IN ('completed', 'failed', 'cancelled')) AS endings,
        max(seq) FILTER (WHERE type IN ('completed', 'failed', 'cancelled')) AS ending,
        max(type) FILTER (WHERE type IN ('completed', 'failed', 'cancelled')) AS ended_as
      FROM process_events GROUP BY process_id
    ), process AS (
      SELECT *, status IN ('completed', 'failed', 'cancelled') AS has_ended FROM processes
    )
    SELECT process.id, what FROM process LEFT JOIN log USING (id) CROSS JOIN LATERAL (VALUES
      ('its log has a gap', log.events IS DISTINCT FROM process.last_seq OR log.first IS DISTINCT FROM 1
        OR log.last IS DISTINCT FROM process.last_seq),
      ('its log does not end as it has', process.has_ended AND (log.endings IS DISTINCT FROM 1
        OR log.ending IS DISTINCT FROM log.last OR log.ended_as IS DISTINCT FROM process.status::text)),
      ('its log has ended before it', NOT process.has_ended AND log.endings > 0),
      ('it runs without an owner or a lease', process.status = 'running' AND (owner IS NULL OR lease_until IS NULL)),
      ('it is held though it does not run', process.status <> 'running' AND (owner IS NOT NULL OR lease_until IS NOT NULL)),
      ('it has ended without a time', process.has_ended <> (finished_at IS NOT NULL)),
      ('another of its session runs, too', process.status = 'running' AND EXISTS (
        SELECT 1 FROM processes other WHERE other.session_id = process.session_id AND other.status = 'running'
          AND other.id <> process.id))
    ) AS rule(what, is_broken) WHERE is_broken`);
}
