import { rateLimitReset } from './rate-limit-reset.js';

const NOW = Date.parse('2026-11-27T12:00:00Z');
const at = (time: string) => Date.parse(`2026-11-27T${time}Z`);

it.each([
  ['seconds', { 'retry-after': '90' }, at('12:01:30')],
  ['a date', { 'retry-after': 'Fri, 27 Nov 2026 13:00:00 GMT' }, at('13:00:00')],
  ['nonsense', { 'retry-after': 'soon' }, null],
  ['nothing', {}, null],
  [
    'the reset of the account',
    { 'anthropic-ratelimit-unified-reset': String(at('15:00:00') / 1000) },
    at('15:00:00'),
  ],
  [
    'the resets of several limits, of which those count that have nothing left',
    {
      'anthropic-ratelimit-requests-remaining': '0',
      'anthropic-ratelimit-requests-reset': '2026-11-27T12:05:00Z',
      'anthropic-ratelimit-input-tokens-remaining': '0',
      'anthropic-ratelimit-input-tokens-reset': '2026-11-27T12:07:00Z',
      'anthropic-ratelimit-output-tokens-remaining': '5',
      'anthropic-ratelimit-output-tokens-reset': '2026-11-27T13:00:00Z',
    },
    at('12:07:00'),
  ],
])('a 429 that says %s', (_, headers, reset) => {
  expect(rateLimitReset(headers, NOW)).toBe(reset);
});
