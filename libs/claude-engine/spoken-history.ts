import { type Anthropic } from '@anthropic-ai/sdk';
import { type SpokenBlock, spokenIn } from './spoken-message.js';
import { ANSWER_TOOL } from './supported-tools.js';
import { type TranscriptEntry } from './transcript.js';

/** A message of a conversation that was text and nothing else. */
export interface SaidMessage {
  role: 'user' | 'assistant';
  content: Anthropic.TextBlockParam[];
}

/** What was said in a conversation, as the Messages API is shown it; null where tools were used, for they cannot be shown. */
export function historyOf(entries: readonly TranscriptEntry[]): SaidMessage[] | null {
  const said: SaidMessage[] = [];
  const answerIds = new Set<string>();
  for (const entry of entries) {
    if (entry.isSidechain === true) continue;
    const { role, content = [] } = spokenIn(entry) ?? {};
    for (const block of content) {
      const text = textOf(block, answerIds);
      if (text === null) return null;
      if (role === undefined || text === '') continue;
      const last = said.at(-1);
      if (last?.role === role) last.content.push({ type: 'text', text });
      else said.push({ role, content: [{ type: 'text', text }] });
    }
  }
  return said;
}

/** Empty for what need not be shown; null for the use of a tool, but for the one that is an answer. */
function textOf(block: SpokenBlock, answerIds: Set<string>): string | null {
  switch (block.type) {
    case 'text':
      return block.text;
    case 'thinking':
      return '';
    case 'tool_use':
      if (block.name !== ANSWER_TOOL) return null;
      answerIds.add(block.toolUseId);
      return JSON.stringify(block.input);
    case 'tool_result':
      return answerIds.has(block.toolUseId) ? '' : null;
  }
}
