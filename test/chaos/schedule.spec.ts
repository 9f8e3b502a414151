import { FAULT_KINDS } from './fault-schedule.js';
import { drawSchedule, FIXED_SEEDS } from './schedule.js';
import { DEFAULT, SHORT } from './timings.js';

describe('a schedule', () => {
  it('is the same for the same seed, and another for another', () => {
    expect(drawSchedule(7, DEFAULT)).toEqual(drawSchedule(7, DEFAULT));
    expect(drawSchedule(8, DEFAULT)).not.toEqual(drawSchedule(7, DEFAULT));
  });

  it('of the fixed seeds holds every kind of fault, Redis of both kinds, and a hundred posts under one key', () => {
    const schedules = FIXED_SEEDS.map((seed) => drawSchedule(seed, SHORT));
    const kinds = schedules.flatMap(({ faults }) => faults.map(({ kind }) => kind));
    expect(new Set(kinds)).toEqual(new Set(FAULT_KINDS));
    expect(new Set(schedules.map(({ redisIsDurable }) => redisIsDurable))).toEqual(new Set([true, false]));
    for (const { submissions } of schedules)
      expect(submissions.filter(({ copies }) => copies === 100)).toHaveLength(1);
  });
});
