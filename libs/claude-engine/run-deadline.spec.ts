import { RunDeadline } from './run-deadline.js';

describe('the deadline of a run', () => {
  let isOver = false;
  const deadline = (ms: number) => {
    isOver = false;
    return new RunDeadline(ms, () => (isOver = true));
  };
  const pass = (ms: number) => {
    jest.advanceTimersByTime(ms);
    return isOver;
  };

  beforeEach(() => jest.useFakeTimers());
  afterEach(() => jest.useRealTimers());

  it('comes when its time is over, once it is not stopped', () => {
    deadline(100);
    expect(pass(99)).toBe(false);
    expect(pass(1)).toBe(true);
    deadline(100).stop();
    expect(pass(1000)).toBe(false);
  });

  it('does not count the time in which it is held, by however many', () => {
    const held = deadline(100);
    pass(60);
    const [first, second] = [held.hold(), held.hold()];
    expect(pass(1000)).toBe(false);
    first();
    first();
    expect(pass(1000)).toBe(false);
    second();
    expect(pass(39)).toBe(false);
    expect(pass(1)).toBe(true);
  });

  it('stays stopped when a hold ends afterwards', () => {
    const held = deadline(100);
    const release = held.hold();
    held.stop();
    release();
    expect(pass(1000)).toBe(false);
  });
});
