import fc from 'fast-check';
import type { ProcessChannel } from './process-channel.js';
import type { NewProcessEvent, ProcessEvent } from './process-events.schemas.js';
import { ProcessFollower } from './process-follower.js';
import type { ProcessLogRepository } from './process-log.repository.js';
import type { Process } from './processes.schemas.js';

const ID = '01a20ad0-901d-72aa-ab3f-5decf5582876';
const LENGTH = 12;

const eventOf = (seq: number): ProcessEvent => {
  const event: NewProcessEvent =
    seq === LENGTH
      ? { type: 'completed', process: { prompt: '', result: '' } as Process }
      : { type: 'text', messageId: 'm', text: String(seq) };
  return { processId: ID, seq, createdAt: '2026-01-01T00:00:00.000Z', ...event };
};

/** A log that grows, and a channel that tells of it when and if the test says so. */
class FakeLog {
  committed: ProcessEvent[] = [];
  listener: ((events: ProcessEvent[]) => void) | null = null;

  commit(count: number): ProcessEvent[] {
    const start = this.committed.length;
    const events = Array.from({ length: Math.min(count, LENGTH - start) }, (_, index) =>
      eventOf(start + index + 1),
    );
    this.committed.push(...events);
    return events;
  }

  readonly repository = {
    read: (_id: string, after: number, { limit }: { limit: number }) =>
      Promise.resolve(this.committed.slice(after, after + limit)),
    lastSeqs: () => Promise.resolve(new Map([[ID, this.committed.length]])),
  } as unknown as ProcessLogRepository;

  readonly channel = {
    subscribeEvents: (_id: string, listener: (events: ProcessEvent[]) => void) => {
      this.listener = listener;
      return Promise.resolve();
    },
    unsubscribeEvents: () => {
      this.listener = null;
    },
  } as unknown as ProcessChannel;
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('a reader of a log', () => {
  it('sees every event once and in order, whatever is lost, late or told twice', async () => {
    const step = fc.record({
      commit: fc.nat(4),
      fate: fc.constantFrom('told', 'lost', 'twice', 'late'),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 8 }), fc.nat(LENGTH - 1), async (steps, after) => {
        const log = new FakeLog();
        log.commit(after);
        const follower = new ProcessFollower(log.repository, log.channel);
        const seen: number[] = [];
        const reading = (async () => {
          for await (const event of follower.follow(ID, after, new AbortController().signal))
            seen.push(event.seq);
        })();
        let late: ProcessEvent[] = [];
        for (const { commit, fate } of steps) {
          const events = log.commit(commit);
          if (fate === 'told' || fate === 'twice') log.listener?.(events);
          if (fate === 'twice') log.listener?.(events);
          log.listener?.(late);
          late = fate === 'late' ? events : [];
          await settle();
        }
        log.commit(LENGTH);
        // What the backstop would find after two seconds: the last event, told with everything before it lost.
        log.listener?.([eventOf(LENGTH)]);
        await reading;
        follower.onApplicationShutdown();
        expect(seen).toEqual(Array.from({ length: LENGTH - after }, (_, index) => after + index + 1));
      }),
      { numRuns: 300 },
    );
  });

  it('lets go of the subscription when it stops', async () => {
    const log = new FakeLog();
    log.commit(3);
    const follower = new ProcessFollower(log.repository, log.channel);
    const controller = new AbortController();
    const events = follower.follow(ID, 0, controller.signal);
    await events.next();
    expect(log.listener).not.toBeNull();
    controller.abort();
    for await (const event of events) expect(event.seq).toBeLessThanOrEqual(3);
    expect(log.listener).toBeNull();
  });
});
