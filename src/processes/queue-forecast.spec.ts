import { forecastOf } from './queue-forecast.service.js';

const NOW = Date.parse('2026-01-01T00:00:00.000Z');
const MINUTE_MS = 60_000;

const startIn = (position: number, pace: Parameters<typeof forecastOf>[1], retryAt: Date | null = null) => {
  const { estimatedStartAt } = forecastOf({ position, retryAt }, pace, NOW);
  return estimatedStartAt && estimatedStartAt.getTime() - NOW;
};

describe('the forecast', () => {
  const busy = { slots: 4, running: 4, meanRunMs: 2 * MINUTE_MS };

  it.each([
    [1, 0.5 * MINUTE_MS],
    [2, 1 * MINUTE_MS],
    [8, 4 * MINUTE_MS],
  ])('of place %i in front of four busy slots is so many parts of a run', (position, expected) => {
    expect(startIn(position, busy)).toBe(expected);
  });

  it('is now for whom a slot is free, also where nothing has ended yet', () => {
    const pace = { slots: 4, running: 1, meanRunMs: null };
    expect(startIn(3, pace)).toBe(0);
    expect(startIn(4, pace)).toBeNull();
    expect(startIn(4, { ...pace, meanRunMs: 4000 })).toBe(1000);
  });

  it('is none without workers, or before anything has ended', () => {
    expect(startIn(1, null)).toBeNull();
    expect(startIn(1, { ...busy, meanRunMs: null })).toBeNull();
  });

  it('is not before the time of the next attempt', () => {
    expect(startIn(1, busy, new Date(NOW + 10 * MINUTE_MS))).toBe(10 * MINUTE_MS);
    expect(startIn(8, busy, new Date(NOW + MINUTE_MS))).toBe(4 * MINUTE_MS);
  });

  it('does not fail where more run than there are slots: a worker has left', () => {
    expect(startIn(1, { ...busy, slots: 2 })).toBe(MINUTE_MS);
  });
});
