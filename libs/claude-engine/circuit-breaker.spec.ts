import { CircuitBreaker } from './circuit-breaker.js';

let now = 0;
let breaker: CircuitBreaker;
const fail = (times: number) => {
  for (let count = 0; count < times; count += 1) breaker.fail();
};
beforeEach(() => {
  now = 0;
  breaker = new CircuitBreaker({ failures: 3, openMs: 100, longestOpenMs: 300 }, () => now);
});
const never = new AbortController().signal;

it('opens after so many failures in a row, and not when something was answered in between', () => {
  fail(2);
  breaker.succeed();
  fail(2);
  expect([breaker.state, breaker.admit()]).toEqual(['closed', 0]);
  fail(1);
  expect([breaker.state, breaker.admit()]).toEqual(['open', 100]);
});

it('lets one request probe after its time, and closes when that is answered', () => {
  fail(3);
  now = 100;
  expect(breaker.state).toBe('half_open');
  expect([breaker.admit(), breaker.admit()]).toEqual([0, 200]);
  breaker.abandon();
  expect(breaker.admit()).toBe(0);
  breaker.succeed();
  expect([breaker.state, breaker.admit(), breaker.admit()]).toEqual(['closed', 0, 0]);
});

it('does not wait for ever for a probe that nothing comes of', () => {
  fail(3);
  now = 100;
  expect([breaker.admit(), breaker.admit()]).toEqual([0, 200]);
  now += 30_000;
  expect([breaker.admit(), breaker.admit()]).toEqual([0, 200]);
});

it('stays open for longer each time that a probe fails, up to a bound, and takes late failures for nothing new', () => {
  fail(3);
  const pauses = [1, 2, 3, 4].map(() => {
    now += breaker.admit();
    expect(breaker.admit()).toBe(0);
    breaker.fail();
    breaker.fail();
    return breaker.admit();
  });
  expect(pauses).toEqual([200, 300, 300, 300]);
});

it('lets runs begin while it is closed, one at a time while it is half open, and all again once it is closed', async () => {
  const first = await breaker.enter(never);
  expect(first).not.toBeNull();
  fail(3);
  now = 100;
  const trial = await breaker.enter(never);
  const begun: number[] = [];
  const others = [1, 2].map(async (id) => {
    const leave = await breaker.enter(never);
    begun.push(id);
    return leave;
  });
  await Promise.resolve();
  expect(begun).toEqual([]);
  trial?.();
  await Promise.race(others);
  expect(begun).toHaveLength(1);
  breaker.succeed();
  await Promise.all(others);
  expect(begun).toHaveLength(2);
});

it('holds nobody who is called off', async () => {
  fail(3);
  const controller = new AbortController();
  const entering = breaker.enter(controller.signal);
  controller.abort();
  expect(await entering).toBeNull();
});
