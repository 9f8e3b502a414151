import { type EngineEvent } from './engine-event.js';
import { StallWatchdog } from './stall-watchdog.js';

const toolUse: EngineEvent = { type: 'tool_use', toolUseId: 't1', name: 'Read', input: {} };
const toolResult: EngineEvent = {
  type: 'tool_result',
  toolUseId: 't1',
  content: '',
  isError: false,
  truncated: false,
};

let onStall: jest.Mock;
let watchdog: StallWatchdog;
beforeEach(() => {
  jest.useFakeTimers();
  onStall = jest.fn();
  watchdog = new StallWatchdog(1000, onStall);
});
afterEach(() => {
  watchdog.stop();
  jest.useRealTimers();
});

describe('a CLI counts as stalled', () => {
  it('when nothing has come for so long', () => {
    jest.advanceTimersByTime(999);
    expect(onStall).not.toHaveBeenCalled();
    jest.advanceTimersByTime(1);
    expect(onStall).toHaveBeenCalledTimes(1);
  });

  it('not while it is held up by us, but again when it no longer is', () => {
    watchdog.hold(true);
    watchdog.saw([]);
    jest.advanceTimersByTime(10_000);
    expect(onStall).not.toHaveBeenCalled();
    watchdog.hold(false);
    jest.advanceTimersByTime(1000);
    expect(onStall).toHaveBeenCalledTimes(1);
  });

  it('not while lines come, whatever they mean', () => {
    for (let line = 0; line < 5; line++) {
      jest.advanceTimersByTime(900);
      watchdog.saw([]);
    }
    expect(onStall).not.toHaveBeenCalled();
  });

  it('not while a tool runs, but again after it', () => {
    watchdog.saw([toolUse]);
    jest.advanceTimersByTime(100_000);
    watchdog.saw([]);
    jest.advanceTimersByTime(100_000);
    expect(onStall).not.toHaveBeenCalled();
    watchdog.saw([toolResult]);
    jest.advanceTimersByTime(1000);
    expect(onStall).toHaveBeenCalledTimes(1);
  });

  it('not before it has had time after the try that it announced', () => {
    const retryAt = new Date(Date.now() + 5000).toISOString();
    watchdog.saw([{ type: 'retrying', attempt: 1, code: 'upstream_overloaded', retryAt }]);
    jest.advanceTimersByTime(5999);
    expect(onStall).not.toHaveBeenCalled();
    jest.advanceTimersByTime(1);
    expect(onStall).toHaveBeenCalledTimes(1);
  });

  it('never after it was stopped', () => {
    watchdog.stop();
    jest.advanceTimersByTime(10_000);
    expect(onStall).not.toHaveBeenCalled();
  });
});
