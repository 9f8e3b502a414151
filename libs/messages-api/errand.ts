import { type Answer, textAnswer } from './answer.js';
import { isRecord, type MessagesBody } from './request-body.js';

/**
 * What the Claude CLI asks on its own account, beside the turns of a conversation:
 * - `probe`: whether key and model work, with `max_tokens: 1`; sent when its model is changed
 * - `title`: a name for the session
 * - `compaction`: a summary of the conversation, for `/compact` or a context that is full
 */
export type Errand = 'probe' | 'title' | 'compaction';

/** Recognises an errand of the CLI (as of 2.1.330). Null for a turn, and for any other client: those have no errands. */
export function errandOf(request: MessagesBody, userAgent: string): Errand | null {
  if (!userAgent.startsWith('claude-cli/')) return null;
  if (request.maxTokens === 1) return 'probe';
  const lastText = lastTextOf(request);
  if (lastText.startsWith('<session>\n') && asksForTitle(request.body)) return 'title';
  if (lastText.startsWith('CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.')) return 'compaction';
  return null;
}

/** Answers an errand as its sender needs it. */
export function answerErrand(errand: Errand): Answer {
  switch (errand) {
    case 'probe':
      return textAnswer('Hi', { stopReason: 'max_tokens' });
    case 'title':
      return textAnswer('{"title":"Scripted session"}');
    case 'compaction':
      return textAnswer('<summary>\nA scripted conversation took place.\n</summary>');
  }
}

function lastTextOf(request: MessagesBody): string {
  const content = request.messages.findLast((message) => message.role === 'user')?.content ?? '';
  if (typeof content === 'string') return content;
  const text = content.findLast((block) => block.type === 'text')?.text;
  return typeof text === 'string' ? text : '';
}

function asksForTitle(body: Readonly<Record<string, unknown>>): boolean {
  const config = body.output_config;
  const format = isRecord(config) ? config.format : null;
  const schema = isRecord(format) ? format.schema : null;
  const properties = isRecord(schema) ? schema.properties : null;
  return isRecord(properties) && Object.keys(properties).join() === 'title';
}
