import fc from 'fast-check';
import { hashApiKey, isApiKey, makeApiKey } from './api-key-format.js';

describe('API keys', () => {
  it('are recognised, and are never the same twice', () => {
    const keys = Array.from({ length: 50 }, makeApiKey);
    expect(keys.every(({ key, prefix }) => isApiKey(key) && key.startsWith(`${prefix}_`))).toBe(true);
    expect(new Set(keys.map(({ key }) => key)).size).toBe(keys.length);
  });

  it('are kept as a hash of the whole key', () => {
    const { key, hash } = makeApiKey();
    expect(hashApiKey(key)).toEqual(hash);
    expect(hash.toString('latin1')).not.toContain(key);
  });

  it('with any one character changed are told from a real one without asking anyone', () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.constantFrom('a', 'b', 'F', 'Z', '0', '9', '_', '-'),
        (position, character) => {
          const { key } = makeApiKey();
          const at = position % key.length;
          fc.pre(key[at] !== character);
          expect(isApiKey(key.slice(0, at) + character + key.slice(at + 1))).toBe(false);
        },
      ),
    );
  });

  it('are nothing like other text', () => {
    fc.assert(fc.property(fc.string(), (text) => expect(isApiKey(text)).toBe(false)));
  });
});
