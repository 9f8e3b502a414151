import type { SessionFigures, SessionRow } from './sessions.repository.js';
import type { Session } from './sessions.schemas.js';

const ROUTE = '/api/v1/claude/sessions';
const UNUSED: SessionFigures = { isBusy: false, processCount: 0, usage: null, costUsd: null };

/** A row as callers see it. */
export function toSession(row: SessionRow, figures = UNUSED): Session {
  const { id, title, head, forkedFromId, transcriptGaps, createdAt } = row;
  const self = `${ROUTE}/${id}`;
  return {
    ...{ id, title, head, forkedFromId, transcriptGaps, ...figures },
    createdAt: createdAt.toISOString(),
    links: {
      self,
      messages: `${self}/messages`,
      processes: `/api/v1/claude/processes?sessionId=${id}`,
      fork: `${self}/fork`,
      files: `${self}/files`,
      archive: `${self}/archive`,
    },
  };
}
