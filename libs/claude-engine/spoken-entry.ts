import { randomUUID } from 'node:crypto';
import { type TranscriptEntry } from './transcript.js';

interface Place {
  cliSessionId: string;
  /** Of the entry before; null for the first of a conversation. */
  parentUuid: string | null;
}

/** The entry of a prompt, as the CLI (2.1.330) writes it: it goes on from there. */
export function promptEntry(place: Place, { text, uuid }: { text: string; uuid: string }): TranscriptEntry {
  return { ...entryAt(place, uuid), type: 'user', message: { role: 'user', content: [textBlock(text)] } };
}

/** The entry of an answer, likewise. */
export function answerEntry(
  place: Place,
  answer: { id: string; model: string; text: string; stopReason: string | null; usage: object },
): TranscriptEntry {
  const { id, model, text, stopReason, usage } = answer;
  const message = { id, type: 'message', role: 'assistant', model, content: [textBlock(text)], usage };
  const ended = { stop_reason: stopReason, stop_sequence: null };
  return { ...entryAt(place, randomUUID()), type: 'assistant', message: { ...message, ...ended } };
}

const textBlock = (text: string) => ({ type: 'text', text });

const entryAt = ({ cliSessionId, parentUuid }: Place, uuid: string) => ({
  uuid,
  parentUuid,
  sessionId: cliSessionId,
  isSidechain: false,
  userType: 'external',
  entrypoint: 'api',
  timestamp: new Date().toISOString(),
});
