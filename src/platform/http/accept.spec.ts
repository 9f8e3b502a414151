import fc from 'fast-check';
import { Accept } from './accept.js';

const JSON_TYPE = 'application/json';
const EVENTS = 'text/event-stream';

describe('an Accept header', () => {
  it.each<[string | undefined, number, number]>([
    [undefined, 1, 1],
    ['', 1, 1],
    ['*/*', 1, 1],
    ['*/*;q=0.1', 0.1, 0.1],
    ['application/json', 1, 0],
    ['APPLICATION/JSON', 1, 0],
    ['application/json; charset=utf-8', 1, 0],
    ['application/*', 1, 0],
    ['text/*, application/json;q=0.5', 0.5, 1],
    ['text/html, application/xhtml+xml, */*;q=0.8', 0.8, 0.8],
    ['image/png', 0, 0],
    ['application/jsonx', 0, 0],
    ['application/json;q=0', 0, 0],
    ['application/json;q=0, */*', 0, 1],
    ['*/*, application/json;q=0.0', 0, 1],
    ['text/event-stream , application/json ; Q=0.25', 0.25, 1],
    ['application/json;profile="a b";q=0.5', 0.5, 0],
    ['nonsense', 1, 1],
    ['nonsense, image/png', 0, 0],
    ['application/json;q=1.2.3', 1, 0],
    [', ,application/json,', 1, 0],
  ])('%j takes JSON with %d and events with %d', (header, json, events) => {
    const accept = new Accept(header);
    expect([accept.qualityOf(JSON_TYPE), accept.qualityOf(EVENTS)]).toEqual([json, events]);
  });

  it.each([
    ['text/event-stream', true],
    ['application/json, text/event-stream;q=0.1', true],
    ['text/*', false],
    ['*/*', false],
    ['text/event-stream;q=0', false],
    [undefined, false],
  ])('%j names events: %s', (header, isNamed) => {
    expect(new Accept(header).names(EVENTS)).toBe(isNamed);
  });

  it('is read, whatever it holds', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', '/', '*', ';', 'q', '=', '0', '.', '1', ',', '"', ' ') }),
        (header) => {
          expect(new Accept(header).qualityOf(JSON_TYPE)).toBeGreaterThanOrEqual(0);
        },
      ),
    );
  });
});
