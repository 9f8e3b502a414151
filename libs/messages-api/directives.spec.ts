import fc from 'fast-check';
import { readDirectives } from './directives.js';

const NOTHING = readDirectives('');

describe('a directive', () => {
  it.each([
    ['[[text Hello there]]', { text: 'Hello there' }],
    ['[[text [[nested]] ]]', { text: '[[nested]] ' }],
    ['[[text one]]\n[[text two]]', { text: 'one\ntwo' }],
    ['[[think Hm]]', { thinking: 'Hm' }],
    ['[[echo]]', { doesEcho: true }],
    ['[[hang]]', { failure: { kind: 'hang', after: 0, times: Infinity } }],
    ['[[hang times=2 after=3]]', { failure: { kind: 'hang', after: 3, times: 2 } }],
    ['[[delay 500]]', { delayMs: 500 }],
    ['[[delay 500]]\n[[delay 20]]', { delayMs: 20 }],
    ['[[deltas 20 50]]', { deltas: { count: 20, apartMs: 50 } }],
    ['[[tool Write {"file_path":"a b"}]]', { tools: [{ name: 'Write', input: { file_path: 'a b' } }] }],
    ['[[tool mcp__docs__list]]', { tools: [{ name: 'mcp__docs__list', input: {} }] }],
    [
      '[[tool A]]\n[[tool B]]',
      {
        tools: [
          { name: 'A', input: {} },
          { name: 'B', input: {} },
        ],
      },
    ],
    ['[[usage in=10 out=5]]', { usage: { inputTokens: 10, outputTokens: 5 } }],
    ['[[usage cache_creation=1 cache_read=2]]', { usage: { cacheCreationTokens: 1, cacheReadTokens: 2 } }],
    ['[[status 529]]', { failure: { kind: 'status', status: 529, retryAfterS: null, times: Infinity } }],
    [
      '[[status 429 retry-after=7 times=2]]',
      { failure: { kind: 'status', status: 429, retryAfterS: 7, times: 2 } },
    ],
    ['[[cut 3]]', { failure: { kind: 'cut', afterDeltas: 3, times: Infinity } }],
    ['[[cut 0 times=1]]', { failure: { kind: 'cut', afterDeltas: 0, times: 1 } }],
    ['[[error api_error times=1]]', { failure: { kind: 'error', type: 'api_error', times: 1 } }],
    ['before\r\n[[echo]]\r\nafter', { doesEcho: true }],
  ])('%j is understood', (prompt, expected) => {
    expect(readDirectives(prompt)).toEqual({ ...NOTHING, ...expected });
  });

  it.each([
    'echo',
    ' [[echo]]',
    '[[echo]] ',
    'say [[echo]]',
    '[[echo]]]',
    '[[ echo]]',
    '[[echo now]]',
    '[[ECHO]]',
    '[[hang 5]]',
    '[[hang times=x]]',
    '[[text]]',
    '[[text ]]',
    '[[think]]',
    '[[unknown]]',
    '[[constructor]]',
    '[[delay]]',
    '[[delay -1]]',
    '[[delay 1.5]]',
    '[[delay 05]]',
    '[[delay 1e3]]',
    '[[delay 600001]]',
    '[[deltas 20]]',
    '[[deltas 0 5]]',
    '[[deltas 1 2 3]]',
    '[[deltas 1  2]]',
    '[[deltas 100001 0]]',
    '[[tool]]',
    '[[tool Write {]]',
    '[[tool Write []]]',
    '[[tool Write null]]',
    '[[tool Wri.te {}]]',
    '[[usage]]',
    '[[usage in]]',
    '[[usage in=]]',
    '[[usage in=1=2]]',
    '[[usage in=1 in=2]]',
    '[[usage total=1]]',
    '[[status]]',
    '[[status 200]]',
    '[[status 600]]',
    '[[status 500 often]]',
    '[[status 500 times=x]]',
    '[[cut]]',
    '[[cut x]]',
    '[[cut 1 after=2]]',
    '[[error]]',
    '[[error nonsense]]',
    '[[error api_error 1]]',
  ])('%j is text', (prompt) => {
    expect(readDirectives(prompt)).toEqual(NOTHING);
  });

  it('is what its line says, whatever the lines around it', () => {
    const line = fc.string({ unit: 'binary' }).filter((other) => !other.includes('[['));
    fc.assert(
      fc.property(line, line, fc.nat(600_000), (before, after, delayMs) => {
        expect(readDirectives(`${before}\n[[delay ${delayMs}]]\n${after}`)).toEqual({ ...NOTHING, delayMs });
      }),
    );
  });

  it('carries any input of a tool that JSON can', () => {
    const input = fc.dictionary(fc.string(), fc.jsonValue());
    fc.assert(
      fc.property(input, (value) => {
        const json = JSON.stringify(value);
        const expected: unknown = JSON.parse(json);
        expect(readDirectives(`[[tool Any ${json}]]`).tools).toEqual([{ name: 'Any', input: expected }]);
      }),
    );
  });
});

it('A tool whose input is nested too deeply to be written again is text', () => {
  const input = `${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`;
  expect(readDirectives(`[[tool Write ${input}]]`).tools).toEqual([]);
});
