import { Logger } from '@nestjs/common';
import fc from 'fast-check';
import type { ProcessChannel } from './process-channel.js';
import { isTerminal, type NewProcessEvent, type ProcessEvent } from './process-events.schemas.js';
import { ProcessFollower } from './process-follower.js';
import type { ProcessLogRepository } from './process-log.repository.js';
import type { Process } from './processes.schemas.js';

const ID = '01a20ad0-901d-72aa-ab3f-5decf5582876';
const LENGTH = 12;
/** How often the logs that are followed are looked up. */
const BACKSTOP_MS = 2_000;

const eventOf = (seq: number): ProcessEvent => {
  const event: NewProcessEvent =
    seq === LENGTH
      ? { type: 'completed', process: { prompt: '', result: '' } as Process }
      : { type: 'text', messageId: 'm', text: String(seq) };
  return { processId: ID, seq, createdAt: '2026-01-01T00:00:00.000Z', ...event };
};

/** A log that grows, and a channel that tells of it when and if the test says so. */
class FakeLog {
  readonly committed: ProcessEvent[] = [];
  isDatabaseAway = false;
  isRedisAway = false;
  reads = 0;
  looks = 0;
  private listener: ((events: ProcessEvent[]) => void) | null = null;
  private untilSubscribed: (() => void)[] = [];

  readonly repository = {
    read: (_id: string, after: number, { limit }: { limit: number }) => {
      this.reads += 1;
      return this.answer(() => this.committed.slice(after, after + limit));
    },
    lastSeqs: () => {
      this.looks += 1;
      return this.answer(() => new Map([[ID, this.committed.length]]));
    },
  } as unknown as ProcessLogRepository;

  readonly channel = {
    subscribeEvents: (_id: string, listener: (events: ProcessEvent[]) => void) => {
      this.listener = listener;
      if (!this.isRedisAway) return Promise.resolve();
      return new Promise<void>((resolve) => this.untilSubscribed.push(resolve));
    },
    unsubscribeEvents: () => {
      this.listener = null;
    },
  } as unknown as ProcessChannel;

  get isFollowed(): boolean {
    return this.listener !== null;
  }

  commit(count: number): ProcessEvent[] {
    const start = this.committed.length;
    const events = Array.from({ length: Math.min(count, LENGTH - start) }, (_, index) =>
      eventOf(start + index + 1),
    );
    this.committed.push(...events);
    return events;
  }

  tell(events: ProcessEvent[]): void {
    if (!this.isRedisAway) this.listener?.(events);
  }

  /** Redis is there again, and with it the subscriptions that were asked for meanwhile. */
  bringRedisBack(): void {
    this.isRedisAway = false;
    for (const resolve of this.untilSubscribed.splice(0)) resolve();
  }

  private async answer<T>(act: () => T): Promise<T> {
    await Promise.resolve();
    if (this.isDatabaseAway) throw Object.assign(new Error('Connection terminated'), { code: 'ECONNRESET' });
    return act();
  }
}

/** Whoever follows a log; with a new connection it goes on after what it has seen. */
class Reader {
  readonly seen: number[] = [];
  hasEnded = false;
  private controller = new AbortController();
  private reading: Promise<void> = Promise.resolve();

  constructor(
    private readonly follower: ProcessFollower,
    private readonly after: number,
    private readonly pause: () => Promise<unknown>,
    /** All that there is of the log when it comes. */
    private known: ProcessEvent[] = [],
  ) {
    this.connect();
  }

  async reconnect(): Promise<void> {
    await this.leave();
    this.connect();
  }

  async leave(): Promise<void> {
    this.controller.abort();
    await this.reading;
  }

  private connect(): void {
    if (this.hasEnded) return;
    this.controller = new AbortController();
    this.reading = this.read(this.controller.signal);
  }

  private async read(signal: AbortSignal): Promise<void> {
    const { known } = this;
    this.known = [];
    for await (const event of this.follower.follow(ID, this.seen.at(-1) ?? this.after, signal, known)) {
      if (signal.aborted) return;
      this.seen.push(event.seq);
      this.hasEnded ||= isTerminal(event);
      await this.pause();
    }
  }
}

const seqsAfter = (after: number) => Array.from({ length: LENGTH - after }, (_, index) => after + index + 1);

describe('a reader of a log', () => {
  beforeAll(() => {
    Logger.overrideLogger(false);
  });
  beforeEach(() => {
    jest.useFakeTimers({ doNotFake: ['setImmediate', 'queueMicrotask', 'nextTick'] });
  });
  afterEach(() => {
    jest.useRealTimers();
  });

  const settle = async () => {
    for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  };

  type Step =
    | { kind: 'commit'; count: number; fate: 'told' | 'lost' | 'twice' | 'held' }
    /** What was held back comes after all, in any order. */
    | { kind: 'late'; pick: number }
    | { kind: 'reconnect'; reader: number }
    | { kind: 'join'; after: number }
    | { kind: 'redis' | 'database' | 'wait' };

  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('commit' as const),
        count: fc.nat(3),
        fate: fc.constantFrom('told' as const, 'lost' as const, 'twice' as const, 'held' as const),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('late' as const), pick: fc.nat(9) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('reconnect' as const), reader: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('join' as const), after: fc.nat(LENGTH) }) },
    fc.record({ kind: fc.constantFrom('redis' as const, 'database' as const, 'wait' as const) }),
  );

  it('sees every event once and in order, and ends after the last, whatever is lost, late, told twice or away', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), fc.nat(LENGTH - 1), async (steps, first) => {
        const log = new FakeLog();
        log.commit(first);
        const follower = new ProcessFollower(log.repository, log.channel);
        // Readers at two paces: one that takes what comes, one that dawdles over each event.
        const readers = [
          new Reader(follower, first, () => Promise.resolve(), [...log.committed]),
          new Reader(follower, 0, settle),
        ];
        const starts = [first, 0];
        const held: ProcessEvent[][] = [];
        const acts = {
          commit: ({ count, fate }: Extract<Step, { kind: 'commit' }>) => {
            const events = log.commit(count);
            if (fate === 'held') held.push(events);
            if (fate === 'told' || fate === 'twice') log.tell(events);
            if (fate === 'twice') log.tell(events);
          },
          late: ({ pick }: Extract<Step, { kind: 'late' }>) => {
            log.tell(held.splice(pick % Math.max(1, held.length), 1).flat());
          },
          reconnect: ({ reader }: Extract<Step, { kind: 'reconnect' }>) =>
            readers[reader % readers.length]?.reconnect(),
          join: ({ after }: Extract<Step, { kind: 'join' }>) => {
            const start = Math.min(after, log.committed.length, LENGTH - 1);
            readers.push(new Reader(follower, start, () => Promise.resolve()));
            starts.push(start);
          },
          redis: () => {
            if (log.isRedisAway) log.bringRedisBack();
            else log.isRedisAway = true;
          },
          database: () => {
            log.isDatabaseAway = !log.isDatabaseAway;
          },
          wait: () => jest.advanceTimersByTimeAsync(BACKSTOP_MS),
        };
        for (const step of steps) {
          await acts[step.kind](step as never);
          await settle();
        }

        log.commit(LENGTH);
        log.isDatabaseAway = false;
        // The rest nobody tells: looking up is enough, also without Redis.
        for (let look = 0; look < 3; look += 1) {
          await jest.advanceTimersByTimeAsync(BACKSTOP_MS);
          for (let turn = 0; turn < LENGTH; turn += 1) await settle();
        }
        expect(readers.map(({ seen }) => seen)).toEqual(starts.map(seqsAfter));
        expect(readers.map(({ hasEnded }) => hasEnded)).toEqual(starts.map(() => true));
        expect(log.isFollowed).toBe(false);
        follower.onApplicationShutdown();
      }),
      { numRuns: 200 },
    );
  });

  it('is told at once of what is published, without a look at the database', async () => {
    const log = new FakeLog();
    const follower = new ProcessFollower(log.repository, log.channel);
    const reader = new Reader(follower, 0, () => Promise.resolve());
    await settle();
    const before = log.reads;
    for (let n = 0; n < 4; n += 1) {
      log.tell(log.commit(3));
      await settle();
    }
    expect([reader.seen, log.reads - before]).toEqual([seqsAfter(0), 0]);
  });

  it('reads nothing of a log whose beginning is known', async () => {
    const log = new FakeLog();
    const follower = new ProcessFollower(log.repository, log.channel);
    const known = log.commit(2);
    const [from0, from2] = [0, 2].map((after) => new Reader(follower, after, () => Promise.resolve(), known));
    await settle();
    for (let n = 0; n < 4; n += 1) {
      log.tell(log.commit(3));
      await settle();
    }
    expect([from0?.seen, from2?.seen, log.reads]).toEqual([seqsAfter(0), seqsAfter(2), 0]);
  });

  describe('once the subscription stands', () => {
    const FIRST_LOOK_MS = 250;
    const follow = (known: ProcessEvent[] = []) => {
      const log = new FakeLog();
      log.isRedisAway = true;
      const follower = new ProcessFollower(log.repository, log.channel);
      const reader = new Reader(follower, 0, () => Promise.resolve(), known);
      return { log, follower, reader };
    };
    const known = [eventOf(1), eventOf(2)];

    it('looks up what was committed before, if it hears nothing', async () => {
      const { log, reader } = follow(known);
      log.commit(3);
      log.bringRedisBack();
      await settle();
      expect([reader.seen, log.looks]).toEqual([[1, 2], 0]);
      await jest.advanceTimersByTimeAsync(FIRST_LOOK_MS);
      await settle();
      expect([reader.seen, log.looks]).toEqual([[1, 2, 3], 1]);
      await reader.leave();
    });

    it('does so also where others come, or hear again what is known', async () => {
      const { log, follower, reader } = follow(known);
      log.commit(3);
      log.bringRedisBack();
      await settle();
      const another = new Reader(follower, 0, () => Promise.resolve());
      log.tell(known);
      await jest.advanceTimersByTimeAsync(FIRST_LOOK_MS);
      await settle();
      expect([reader.seen, another.seen, log.looks]).toEqual([[1, 2, 3], [1, 2, 3], 1]);
      for (const each of [reader, another]) await each.leave();
    });

    it('does not where news come, which show what is missing', async () => {
      const { log, reader } = follow(known);
      log.commit(3);
      log.bringRedisBack();
      await settle();
      log.tell(log.commit(1));
      await jest.advanceTimersByTimeAsync(FIRST_LOOK_MS);
      expect([reader.seen, log.looks]).toEqual([[1, 2, 3, 4], 0]);
      await reader.leave();
    });

    it('does not for who has left', async () => {
      const { log, reader } = follow(known);
      await settle();
      await reader.leave();
      log.bringRedisBack();
      await settle();
      expect(jest.getTimerCount()).toBe(0);
      expect(log.looks).toBe(0);
    });
  });

  it('lets go of the subscription when it stops', async () => {
    const log = new FakeLog();
    log.commit(3);
    const follower = new ProcessFollower(log.repository, log.channel);
    const [one, another] = [1, 2].map(() => new Reader(follower, 0, () => Promise.resolve()));
    await settle();
    expect([one?.seen, another?.seen]).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ]);
    await one?.leave();
    expect(log.isFollowed).toBe(true);
    await another?.leave();
    expect(log.isFollowed).toBe(false);
    expect(jest.getTimerCount()).toBe(0);
  });

  it('does not ask again and again for what is not there', async () => {
    const log = new FakeLog();
    log.commit(3);
    const follower = new ProcessFollower(log.repository, log.channel);
    const reader = new Reader(follower, 0, () => Promise.resolve());
    await settle();
    log.tell([eventOf(9)]); // and its process is gone before anybody reads it
    const before = log.reads;
    for (let turn = 0; turn < 20; turn += 1) await settle();
    expect(log.reads - before).toBeLessThan(4);
    await reader.leave();
  });

  it('fails when its log cannot be read for another reason than an outage', async () => {
    const log = new FakeLog();
    const refusal = new Error('syntax error');
    log.repository.read = () => Promise.reject(refusal);
    const follower = new ProcessFollower(log.repository, log.channel);
    await expect(follower.untilEnd(ID, 0, new AbortController().signal)).rejects.toBe(refusal);
    expect(log.isFollowed).toBe(false);
  });
});
