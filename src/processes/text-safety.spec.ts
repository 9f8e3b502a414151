import fc from 'fast-check';
import { makeStorable, splitHalfPair } from './text-safety.js';

const anyText = fc.string({ unit: 'binary' });

describe('makeStorable', () => {
  it('leaves text that can be stored as it is', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        fc.pre(!text.includes('\0'));
        expect(makeStorable({ text: [text] })).toEqual({ text: [text] });
      }),
    );
  });

  it('makes of any tree one that holds neither U+0000 nor half a pair, in keys and in values', () => {
    const unit = fc.constantFrom('\0', '\ud83d', '\ude00', 'a');
    const broken = fc.array(unit).map((units) => units.join(''));
    fc.assert(
      fc.property(fc.dictionary(broken, fc.array(broken)), (tree) => {
        const texts = Object.entries(makeStorable(tree)).flat(2);
        for (const text of texts) {
          expect(text).not.toContain('\0');
          expect(text.isWellFormed()).toBe(true);
        }
      }),
    );
  });

  it('keeps what is no text', () => {
    expect(makeStorable([1, null, true, undefined])).toEqual([1, null, true, undefined]);
  });
});

it('splitHalfPair makes well-formed text whole again, wherever it was cut', () => {
  fc.assert(
    fc.property(anyText, fc.array(fc.nat(20)), (text, cuts) => {
      let carried = '';
      let joined = '';
      let rest = text;
      for (const length of [...cuts, text.length]) {
        const { whole, half } = splitHalfPair(carried + rest.slice(0, length));
        rest = rest.slice(length);
        joined += whole;
        carried = half;
        expect(whole.isWellFormed()).toBe(true);
      }
      expect(joined + carried).toBe(text);
    }),
  );
});
