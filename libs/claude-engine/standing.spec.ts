import { standingOf } from './standing.js';
import { type TranscriptEntry } from './transcript.js';

const PROMPT_ID = '01a20ad0-901d-72aa-ab3f-5decf5582876';
const ANOTHER = { type: 'user', uuid: 'u0', message: { role: 'user', content: 'before' } };
const PROMPT = { type: 'user', uuid: PROMPT_ID, message: { role: 'user', content: 'go' } };
const NOTE = { type: 'attachment', uuid: 'a1' };

const says = (text: string, fields: object = {}, more: object = {}): TranscriptEntry => ({
  type: 'assistant',
  message: {
    id: 'm1',
    model: 'opus',
    stop_reason: 'end_turn',
    content: [{ type: 'text', text }],
    ...fields,
  },
  ...more,
});
const calls = says('', { content: [{ type: 'tool_use', id: 't1', name: 'Glob', input: {} }] });
const result = { type: 'user', message: { content: [{ type: 'tool_result', tool_use_id: 't1' }] } };
const interrupted = {
  type: 'user',
  message: { content: [{ type: 'text', text: '[Request interrupted by user for tool use]' }] },
};

const standing = (...entries: TranscriptEntry[]) =>
  standingOf({ cliSessionId: 's', parts: [{ subpath: '', entries }] }, PROMPT_ID);

describe('a conversation', () => {
  it('that nobody keeps has not come to the prompt', () => {
    expect(standingOf(null, PROMPT_ID)).toEqual({ kind: 'new' });
  });

  it.each<[string, TranscriptEntry[], string]>([
    ['that ends before the prompt is new to it', [ANOTHER, says('yes')], 'new'],
    ['that ends with the prompt is cut off', [ANOTHER, says('yes'), PROMPT], 'cut_off'],
    ['that ends with notes about the prompt is cut off', [PROMPT, NOTE], 'cut_off'],
    ['that ends with a tool call is cut off', [PROMPT, calls], 'cut_off'],
    ['that ends with a tool result is cut off', [PROMPT, calls, result], 'cut_off'],
    [
      'that ends with a thought is cut off',
      [PROMPT, says('', { content: [{ type: 'thinking', thinking: 'hm' }] })],
      'cut_off',
    ],
    [
      'that ends with the failure of the API is cut off',
      [PROMPT, says('API Error: 529', {}, { isApiErrorMessage: true })],
      'cut_off',
    ],
    [
      'that ends with the note to go on is cut off',
      [PROMPT, { type: 'user', isMeta: true, message: { content: [{ type: 'text', text: 'Continue' }] } }],
      'cut_off',
    ],
    ['that was interrupted is stopped', [PROMPT, says('a', { stop_reason: null }), interrupted], 'stopped'],
    [
      'that ends in the middle of a message is stopped',
      [PROMPT, says('a', { stop_reason: null })],
      'stopped',
    ],
    ['that ran out of tokens is stopped', [PROMPT, says('a', { stop_reason: 'max_tokens' })], 'stopped'],
    ['is not moved on by a subagent', [PROMPT, calls, says('done', {}, { isSidechain: true })], 'cut_off'],
  ])('%s', (_, entries, kind) => {
    expect(standing(...entries)).toEqual({ kind });
  });

  it('that has answered tells the answer, whole', () => {
    const thought = says('', { id: 'm2', content: [{ type: 'thinking', thinking: 'hm' }] });
    expect(
      standing(ANOTHER, says('no'), PROMPT, calls, result, thought, says('one', { id: 'm2' }), NOTE),
    ).toEqual({ kind: 'answered', result: 'one', stopReason: 'end_turn', numTurns: 2, model: 'opus' });
  });

  it('that has refused says so', () => {
    expect(standing(PROMPT, says('no', { stop_reason: 'refusal' }))).toMatchObject({ stopReason: 'refusal' });
  });
});
