import fc from 'fast-check';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type EngineEvent, MAX_TEXT_LENGTH } from './engine-event.js';
import { StreamParser } from './stream-parser.js';

const RECORDINGS = join(__dirname, 'recordings');

function parse(lines: unknown[], parser = new StreamParser(() => 0)): EngineEvent[] {
  return lines.flatMap((line) => parser.parse(line));
}

function linesOf(name: string): Record<string, unknown>[] {
  const text = readFileSync(join(RECORDINGS, name, 'lines.jsonl'), 'utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

const names = readdirSync(RECORDINGS).filter((name) => existsSync(join(RECORDINGS, name, 'lines.jsonl')));

describe('a recorded stream means what it meant', () => {
  it.each(names)('%s', (name) => {
    const events = JSON.parse(readFileSync(join(RECORDINGS, name, 'events.json'), 'utf8')) as unknown;
    expect(parse(linesOf(name))).toEqual(events);
  });

  it.each(names)('%s: its deltas make up its messages', (name) => {
    const events = parse(linesOf(name));
    const messages = events.filter((event) => event.type === 'message');
    const textOf = (messageId: string) =>
      events
        .map((event) => (event.type === 'text' && event.messageId === messageId ? event.text : ''))
        .join('');
    expect(messages.map(({ messageId }) => textOf(messageId))).toEqual(messages.map(({ text }) => text));
  });
});

describe('any line', () => {
  it('gives events or stays as it is, and never throws', () => {
    const kinds = fc.constantFrom('system', 'assistant', 'user', 'result', 'stream_event', 'new_thing');
    const line = fc.oneof(
      fc.jsonValue(),
      fc.record({ type: kinds, subtype: fc.constantFrom('init', 'api_retry', 'x'), message: fc.jsonValue() }),
    );
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        expect(parse(lines)).toEqual(expect.any(Array));
      }),
    );
  });

  it('that nobody knows is kept as it is', () => {
    const line = { type: 'system', subtype: 'brand_new', value: 1 };
    expect(parse([line])).toEqual([{ type: 'raw', line }]);
  });

  it('that nobody knows is not kept whole when it is huge', () => {
    const line = { type: 'brand_new', value: 'x'.repeat(100_000) };
    expect(parse([line])).toEqual([
      { type: 'raw', line: { type: 'brand_new', subtype: null, truncated: true } },
    ]);
  });

  it('of a subagent stays apart from the text', () => {
    const lines = linesOf('text').map((line) =>
      line.type === 'stream_event' || line.type === 'assistant'
        ? { ...line, parent_tool_use_id: 'toolu-1' }
        : line,
    );
    const types = new Set(parse(lines).map(({ type }) => type));
    expect([...types]).toEqual(['started', 'raw', 'ended']);
  });
});

describe('a line whose numbers cannot be', () => {
  const result = linesOf('text').find(({ type }) => type === 'result')!;
  const figures = { inputTokens: 1, outputTokens: 1, cacheReadInputTokens: 1, cacheCreationInputTokens: 1 };
  const used = (change: object) => ({ ...result, modelUsage: { a: { ...figures, ...change } } });

  it.each<[string, object]>([
    ['half a token', used({ inputTokens: 1.5 })],
    ['more tokens than there are', used({ outputTokens: 1e300 })],
    ['fewer than none', used({ cacheReadInputTokens: -1 })],
    ['what nobody could pay', { ...result, total_cost_usd: 1e308 }],
    ['what would be paid back', { ...result, total_cost_usd: -1 }],
    ['half a turn', { ...result, num_turns: 0.5 }],
    ['no HTTP status', { ...result, is_error: true, api_error_status: 1e9 }],
    [
      'a wait that never ends',
      { type: 'system', subtype: 'api_retry', retry_delay_ms: 1e300, error_status: 500 },
    ],
    [
      'a name without an end',
      { ...linesOf('text').find(({ subtype }) => subtype === 'init'), model: 'x'.repeat(300) },
    ],
  ])('is no more than a line: %s', (_, line) => {
    expect(parse([line])).toMatchObject([{ type: 'raw' }]);
  });

  it('is no more than a line where the numbers are of a message', () => {
    const usage = { input_tokens: 1e300, output_tokens: 0.5 };
    const lines = [
      { type: 'stream_event', event: { type: 'message_start', message: { id: 'm', usage } } },
      { type: 'stream_event', event: { type: 'message_delta', delta: {}, usage } },
    ];
    expect(parse(lines).filter(({ type }) => type === 'usage')).toEqual([]);
  });

  it('keeps of a tool call that it was made, and not an input without an end', () => {
    const call = { type: 'tool_use', id: 't', name: 'Write', input: { a: 'x'.repeat(MAX_TEXT_LENGTH) } };
    const line = { type: 'assistant', message: { id: 'm', model: 'a', content: [call] } };
    expect(parse([line])).toContainEqual({
      ...{ type: 'tool_use', toolUseId: 't', name: 'Write', input: { truncated: true } },
    });
  });
});

describe('a tool result', () => {
  const toolResult = (content: unknown) => ({
    type: 'user',
    parent_tool_use_id: null,
    message: { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu-1', content }] },
  });

  it('longer than the limit is cut, and says so', () => {
    const [event] = parse([toolResult('x'.repeat(MAX_TEXT_LENGTH + 1))]);
    expect(event).toMatchObject({ type: 'tool_result', truncated: true });
    expect(event).toHaveProperty('content.length', MAX_TEXT_LENGTH);
  });

  it('is never cut inside a character', () => {
    const [event] = parse([toolResult(`${'x'.repeat(MAX_TEXT_LENGTH - 1)}😀`)]);
    expect(event).toHaveProperty('content', 'x'.repeat(MAX_TEXT_LENGTH - 1));
  });

  it('names what is no text', () => {
    const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: '' } };
    const [event] = parse([toolResult([{ type: 'text', text: 'See' }, image, { type: 'other' }])]);
    expect(event).toMatchObject({ content: 'See\n[image/png]\n[other]', truncated: false });
  });
});

describe('a result', () => {
  const endingOf = (changes: object) => {
    const lines = linesOf('text').map((line) => (line.type === 'result' ? { ...line, ...changes } : line));
    return parse(lines).find((event) => event.type === 'ended')?.ending;
  };

  it.each([
    [401, 'upstream_authentication_failed', false],
    [403, 'upstream_authentication_failed', false],
    [400, 'upstream_invalid_request', false],
    [404, 'upstream_invalid_request', false],
    [413, 'upstream_invalid_request', false],
    [429, 'upstream_rate_limited', true],
    [500, 'upstream_overloaded', true],
    [503, 'upstream_overloaded', true],
    [529, 'upstream_overloaded', true],
  ])('with HTTP status %i is %s, though its subtype is success', (status, code, retryable) => {
    const ending = endingOf({ is_error: true, api_error_status: status, terminal_reason: 'api_error' });
    expect(ending).toMatchObject({ kind: 'failed', error: { code, retryable } });
  });

  it('without a status but with an API error counts as one that was not reached', () => {
    const ending = endingOf({ is_error: true, terminal_reason: 'api_error' });
    expect(ending).toMatchObject({ kind: 'failed', error: { code: 'upstream_overloaded' } });
  });

  it('of an unknown failure is internal', () => {
    const ending = endingOf({
      is_error: true,
      subtype: 'error_during_execution',
      terminal_reason: 'model_error',
    });
    expect(ending).toMatchObject({ kind: 'failed', error: { code: 'internal', retryable: false } });
  });

  it('tells what the API found wrong with the request, but no address and no path', () => {
    const told = 'API Error: 400 prompt is too long, see /srv/data/x.json (127.0.0.1:7791)';
    const ending = endingOf({ is_error: true, api_error_status: 400, result: told });
    expect(ending).toHaveProperty(
      'error.detail',
      'The Messages API refused the request as invalid. prompt is too long, see',
    );
  });

  it.each(['max_tokens', 'refusal'])('after a message that stopped by %s says so', (stopReason) => {
    const lines = JSON.parse(JSON.stringify(linesOf('text')).replaceAll('end_turn', stopReason)) as unknown[];
    expect(parse(lines).at(-1)).toMatchObject({ ending: { kind: 'completed', stopReason } });
  });

  it('longer than the limit is cut, and says so', () => {
    const ending = endingOf({ result: 'x'.repeat(MAX_TEXT_LENGTH + 1) });
    expect(ending).toMatchObject({ kind: 'completed', truncated: true });
  });
});
