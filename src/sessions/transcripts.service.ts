import { Injectable, Logger } from '@nestjs/common';
import {
  type KeptTranscript,
  mayBeSpoken,
  spokenIn,
  type TranscriptEntry,
  type TranscriptPart,
} from '../../libs/claude-engine/index.js';
import type { MessagesQuery, SessionMessagePage } from './sessions.schemas.js';
import { TranscriptsRepository, type TranscriptWriter } from './transcripts.repository.js';

export type { TranscriptWriter };

/** What a conversation goes on with: many times what a model reads at once. What is older is forgotten, and still kept. */
const MAX_CONVERSATION_BYTES = 32 * 1024 * 1024;
const MAX_PAGE_BYTES = 8 * 1024 * 1024;

/** The conversations of sessions, for whoever runs them. It has been authorised. */
@Injectable()
export class TranscriptsService {
  private readonly logger = new Logger(TranscriptsService.name);

  constructor(private readonly transcripts: TranscriptsRepository) {}

  /** Null for a session in which nothing was said yet. */
  async load(sessionId: string): Promise<KeptTranscript | null> {
    const rows = await this.transcripts.readLatest(sessionId, MAX_CONVERSATION_BYTES);
    const cliSessionId = rows[0]?.cliSessionId ?? null;
    if (cliSessionId === null) return null;
    const parts = new Map<string, TranscriptPart>();
    for (const { subpath, json } of rows) {
      const part = parts.get(subpath) ?? { subpath, entries: [] };
      part.entries.push(JSON.parse(json) as TranscriptEntry);
      parts.set(subpath, part);
    }
    return { cliSessionId, parts: [...parts.values()] };
  }

  /** @returns the transcript's mark, which grows with whatever is appended, from then on; null where the writer may not write, whose process must be running, and still its own */
  append(
    writer: TranscriptWriter,
    cliSessionId: string,
    { subpath, entries }: TranscriptPart,
  ): Promise<number | null> {
    return this.transcripts.append(writer, {
      cliSessionId,
      subpath,
      entries: entries.map((entry) => ({
        uuid: entry.uuid ?? null,
        spoken: mayBeSpoken(entry),
        json: JSON.stringify(entry),
      })),
    });
  }

  /** What was said, without what the CLI notes for itself. */
  async readMessages(sessionId: string, { after, limit }: MessagesQuery): Promise<SessionMessagePage> {
    const items: SessionMessagePage['items'] = [];
    let place = after;
    let maxBytes = MAX_PAGE_BYTES;
    while (items.length < limit && maxBytes > 0) {
      const bounds = { limit: limit - items.length, maxBytes };
      const rows = await this.transcripts.readSpoken(sessionId, place, bounds);
      if (rows.length === 0) return { items, nextCursor: null };
      for (const { ordinal, processId, json, bytes } of rows) {
        const message = spokenIn(JSON.parse(json) as TranscriptEntry);
        if (message) items.push({ ...message, processId });
        place = ordinal;
        maxBytes -= bytes;
      }
    }
    return { items, nextCursor: place };
  }

  /** Something of the session's conversation could not be kept: it is marked, and the operator is told. Never rejects. */
  async tellGap(sessionId: string, reason: string): Promise<void> {
    this.logger.error({ sessionId, reason }, 'Something of a conversation could not be kept: it has a gap.');
    await this.transcripts
      .countGap(sessionId)
      .catch((err: unknown) => this.logger.error({ err, sessionId }, 'The gap could not be counted.'));
  }
}
