import { OutputGate, type OutputReader } from './output-gate.js';

const LIMITS = { maxEvents: 1, maxBytes: 10, maxLineBytes: 8 };

function open() {
  const overflows: string[] = [];
  const gate = new OutputGate(LIMITS, () => overflows.push('nobody'));
  const reader = (name: string): OutputReader => ({
    events: { length: 0, taken: () => Promise.resolve() },
    overflow: () => overflows.push(name),
    holdUp: () => undefined,
  });
  const write = (text: string) => new Promise<unknown>((resolve) => gate.write(text, resolve));
  const through = () => String((gate.read() as Buffer | null) ?? '');
  return { gate, overflows, reader, write, through };
}

it('Output counts anew for each reader, and is shut for the one to whom it was too much', async () => {
  const { gate, overflows, reader, write, through } = open();
  gate.turnTo(reader('first'));
  await write('12345678\n');
  gate.turnTo(reader('second'));
  await write('12345678\n');
  expect(overflows).toEqual([]);
  expect(through()).toBe('12345678\n12345678\n');
  await write('12\n');
  await write('12\n');
  expect(overflows).toEqual(['second']);
  expect(through()).toBe('');
  gate.turnTo(reader('third'));
  await write('12\n');
  expect(through()).toBe('12\n');
});

it('Output that nobody has asked for has its limits too', async () => {
  const { overflows, write } = open();
  await write('123456789');
  expect(overflows).toEqual(['nobody']);
});
