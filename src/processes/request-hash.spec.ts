import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { ExecuteRequestSchema } from './processes.schemas.js';
import { hashOf } from './request-hash.js';

const hash = (body: object) => Buffer.from(hashOf(ExecuteRequestSchema.parse(body))).toString('hex');

const options = fc.record(
  {
    model: fc.constantFrom('opus', 'sonnet'),
    tools: fc.subarray(['Read', 'Write', 'Glob']),
    maxTurns: fc.integer({ min: 1, max: 3 }),
    priority: fc.nat(9),
    permissionMode: fc.constantFrom('deny', 'plan'),
    cancelOnDisconnect: fc.boolean(),
    retry: fc.record({
      maxAttempts: fc.integer({ min: 2, max: 3 }),
      on: fc.constantFrom(['timeout'], ['stalled']),
    }),
    metadata: fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.string({ unit: 'grapheme-ascii' })),
  },
  { requiredKeys: [] },
);
const body = options.chain((chosen) => fc.constantFrom('a', 'b').map((prompt) => ({ prompt, ...chosen })));

/** The same, every object of it with its fields the other way round. */
const reversed = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toReversed()
      .map(([key, inner]) => [key, reversed(inner)]),
  );
};

describe('the hash of a request', () => {
  it('is the same for bodies that ask for the same, and for no others', () => {
    fc.assert(
      fc.property(body, body, (one, other) => {
        const parsed = [one, other].map((each) => ExecuteRequestSchema.parse(each));
        const isSame = JSON.stringify(sorted(parsed[0])) === JSON.stringify(sorted(parsed[1]));
        expect(hash(one) === hash(other)).toBe(isSame);
        expect(hash(reversed(one) as object)).toBe(hash(one));
      }),
      { numRuns: 500 },
    );
  });

  it('does not tell a default that is written out from one that is not', () => {
    expect(hash({ prompt: 'Hello', priority: 5, permissionMode: 'deny', metadata: {} })).toBe(
      hash({ prompt: 'Hello' }),
    );
  });

  it('tells whatever else differs', () => {
    const bodies = [
      { prompt: 'Hello' },
      { prompt: 'Hello ' },
      { prompt: 'Hello', tools: [] },
      { prompt: 'Hello', tools: ['Read', 'Write'] },
      { prompt: 'Hello', tools: ['Write', 'Read'] },
      { prompt: 'Hello', metadata: { a: 'b' } },
      { prompt: 'Hello', metadata: { a: '', b: '' } },
      { prompt: 'Hello', model: 'a' },
      { prompt: 'Hello', systemPrompt: 'a' },
    ];
    expect(new Set(bodies.map(hash)).size).toBe(bodies.length);
  });

  it('leaves out what is at its default: a later version with one more field finds what this one has kept', () => {
    expect(hash({ prompt: 'Hello', priority: 5 })).toBe(
      createHash('sha256').update('{"prompt":"Hello"}').digest('hex'),
    );
  });
});

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}
