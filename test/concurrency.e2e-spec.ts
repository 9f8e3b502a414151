import { type Answer, textAnswer } from '../libs/messages-api/index.js';
import { isTerminal } from '../src/processes/process-events.schemas.js';
import type { Process } from '../src/processes/processes.schemas.js';
import { countClisOf, untilNoCliOf } from './support/cli-processes.js';
import { startTestServer, type TestServer } from './support/test-server.js';

const SLOTS = 4;
const PROCESSES = 20;

let runner: TestServer;

beforeAll(async () => {
  runner = await startTestServer({ WORKER_CONCURRENCY: String(SLOTS) });
});
beforeEach(() => untilNoCliOf(runner.dataDirectory));
afterEach(() => runner.messages.reset());
afterAll(() => runner.stop());

/** Holds every answer until it is let go, and counts what is asked at the same time. */
class HeldAnswers {
  /** The prompts whose answer is awaited, in the order in which they came. */
  readonly waiting: string[] = [];
  peak = 0;
  private readonly release = new Map<string, () => void>();
  private onArrival: (() => void) | null = null;

  readonly script = async ({ prompt }: { prompt: string }): Promise<Answer> => {
    this.waiting.push(prompt);
    this.peak = Math.max(this.peak, this.waiting.length);
    await new Promise<void>((resolve) => {
      this.release.set(prompt, resolve);
      this.onArrival?.();
    });
    return textAnswer(`Answer to ${prompt}`);
  };

  /** Resolves when so many are asked at the same time. */
  async untilWaiting(count: number): Promise<void> {
    while (this.waiting.length < count) {
      await new Promise<void>((resolve) => (this.onArrival = resolve));
    }
  }

  letGo(prompt: string): void {
    this.waiting.splice(this.waiting.indexOf(prompt), 1);
    this.release.get(prompt)?.();
  }
}

/** Samples the process table until it is stopped. @returns the most CLIs that were there at once */
function watchCliPeak(dataDirectory: string): { stop: () => Promise<number> } {
  const stopping = new AbortController();
  const watching = (async () => {
    let peak = 0;
    while (!stopping.signal.aborted) peak = Math.max(peak, await countClisOf(dataDirectory));
    return peak;
  })();
  return {
    stop: () => {
      stopping.abort();
      return watching;
    },
  };
}

async function submitAll(name: string): Promise<Process[]> {
  const processes: Process[] = [];
  for (let index = 0; index < PROCESSES; index += 1)
    processes.push(await runner.client.submit({ prompt: `${name} ${index}` }));
  return processes;
}

describe(`${PROCESSES} processes in ${SLOTS} slots`, () => {
  it('start in the order in which they were submitted, never more of them than there are slots', async () => {
    const held = new HeldAnswers();
    runner.messages.script(held.script);
    const processes = await submitAll('In order');
    await held.untilWaiting(SLOTS);
    const prompts = processes.map(({ prompt }) => prompt);
    // Who claimed first may still be the second to ask.
    expect([...held.waiting].sort()).toEqual(prompts.slice(0, SLOTS).sort());

    for (let next = SLOTS; next < PROCESSES; next += 1) {
      expect(await countClisOf(runner.dataDirectory)).toBe(SLOTS);
      held.letGo(held.waiting[0]!);
      await held.untilWaiting(SLOTS);
      expect(held.waiting.at(-1)).toBe(prompts[next]);
    }
    for (const prompt of [...held.waiting]) held.letGo(prompt);
    for (const { id, prompt } of processes) {
      expect(await runner.client.untilEnded(id)).toMatchObject({
        status: 'completed',
        result: `Answer to ${prompt}`,
        attempt: 1,
      });
    }
    expect(held.peak).toBe(SLOTS);
  });

  it('have four CLIs at the peak, no more and no fewer, and all complete', async () => {
    const held = new HeldAnswers();
    let open = false;
    // The first four answer when all four are there; whoever comes later is answered at once.
    runner.messages.script((request) => (open ? textAnswer('Answer') : held.script(request)));
    const watch = watchCliPeak(runner.dataDirectory);
    const processes = await submitAll('All at once');
    await held.untilWaiting(SLOTS);
    open = true;
    for (const prompt of [...held.waiting]) held.letGo(prompt);
    for (const { id } of processes) {
      expect(await runner.client.untilEnded(id)).toMatchObject({ status: 'completed', error: null });
    }
    await untilNoCliOf(runner.dataDirectory);
    expect(await watch.stop()).toBe(SLOTS);
    for (const { id } of processes) {
      const { items } = await runner.client.events(id, '?limit=1000');
      expect(items.map(({ seq }) => seq)).toEqual(items.map((_, index) => index + 1));
      expect(items.filter(isTerminal)).toEqual([items.at(-1)]);
    }
  });

  it('give everybody a place in the queue, from 1 without a gap', async () => {
    const held = new HeldAnswers();
    runner.messages.script(held.script);
    const processes = await submitAll('In a queue');
    await held.untilWaiting(SLOTS);
    const found = await Promise.all(processes.map(({ id }) => runner.client.find(id)));
    expect(found.map(({ queuePosition }) => queuePosition)).toEqual([
      ...Array.from({ length: SLOTS }, () => null),
      ...Array.from({ length: PROCESSES - SLOTS }, (_, index) => index + 1),
    ]);
    for (const { id } of processes.toReversed()) await runner.client.cancel(id);
    for (const { id } of processes) {
      expect(await runner.client.untilEnded(id)).toMatchObject({ status: 'cancelled' });
    }
  });
});
