import { Logger } from '@nestjs/common';
import { RunAbort } from '../../libs/claude-engine/index.js';
import { FakeLog, tick } from '../../test/support/fake-log.js';
import { readConfig, requireStores } from '../platform/config/config.js';
import { EventAppender } from './event-appender.js';
import type { LeaseKeeper, LiveRun } from './lease-keeper.js';
import type { ClaimedProcess, ProcessClaimsRepository } from './process-claims.repository.js';
import type { ProcessRunner } from './process-runner.js';
import { ProcessWorker } from './process-worker.js';

/** A worker whose claims and runs take as long as the test wants. */
class Bench {
  readonly log = new FakeLog();
  readonly waiting = ['a', 'b', 'c'];
  readonly held: string[] = [];
  readonly runs = new Map<string, { run: LiveRun; end: () => void }>();
  isProven = true;
  claims = 0;
  private claiming: Promise<unknown> = Promise.resolve();

  readonly worker = new ProcessWorker(
    requireStores(readConfig({ DATABASE_URL: 'postgresql://nowhere', REDIS_URL: 'redis://nowhere' })),
    { claim: () => this.claim() } as unknown as ProcessClaimsRepository,
    {
      hold: (_owner: string, { processId }: LiveRun) => void this.held.push(processId),
      release: ({ processId }: LiveRun) => void this.held.splice(this.held.indexOf(processId), 1),
      isProven: () => this.isProven,
      assureGuard: () => Promise.resolve(),
      stop: () => undefined,
    } as unknown as LeaseKeeper,
    new EventAppender(this.log.repository, this.log.endings, this.log.channel),
    { run: (_claimed: unknown, run: LiveRun) => this.run(run) } as unknown as ProcessRunner,
  );

  holdClaims(): () => void {
    let release: () => void = () => undefined;
    this.claiming = new Promise<void>((resolve) => (release = resolve));
    return release;
  }

  endOf(id: string): string | null {
    const signal = this.runs.get(id)?.run.controller.signal;
    return signal?.aborted === true ? (signal.reason as { kind: string }).kind : null;
  }

  private async claim(): Promise<ClaimedProcess | null> {
    this.claims += 1;
    await this.claiming;
    const id = this.waiting.shift();
    if (id === undefined) return null;
    return { id, fence: this.log.process(id).fence, lastSeq: 0 } as unknown as ClaimedProcess;
  }

  /** Ends when the test lets it, or when it is told to. */
  private async run(run: LiveRun): Promise<void> {
    await new Promise<void>((resolve) => {
      this.runs.set(run.processId, { run, end: resolve });
      const { signal } = run.controller;
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve());
    });
  }
}

describe('a worker', () => {
  let bench: Bench;

  beforeAll(() => {
    Logger.overrideLogger(false);
  });
  beforeEach(() => {
    bench = new Bench();
  });

  const settle = async () => {
    for (let turn = 0; turn < 5; turn += 1) await tick();
  };
  const isSettled = async (promise: Promise<unknown>) => {
    let hasSettled = false;
    void promise.finally(() => (hasSettled = true));
    await settle();
    return hasSettled;
  };

  it('kills what it loses, also what is being ended gently', async () => {
    const running = bench.worker.runNext();
    await settle();
    const { run } = bench.runs.get('a')!;
    run.controller.abort(new RunAbort('cancelled'));
    expect(run.killer.signal.aborted).toBe(false);
    run.log.lose();
    expect(run.killer.signal.aborted).toBe(true);
    await running;
  });

  it('holds a lease and a slot for as long as a run takes, and nothing where nothing waits', async () => {
    const turn = bench.worker.runNext();
    await settle();
    expect([bench.held, bench.worker.slots.busy]).toEqual([['a'], 1]);
    bench.runs.get('a')?.end();
    await turn;
    expect([bench.held, bench.worker.slots.busy]).toEqual([[], 0]);
    bench.waiting.length = 0;
    await bench.worker.runNext();
    expect([...bench.runs.keys()]).toEqual(['a']);
  });

  it('does not begin what it got too late to be sure of', async () => {
    bench.isProven = false;
    await bench.worker.runNext();
    expect(bench.endOf('a')).toBe('shutdown');
  });

  it('kills at once what it loses, and cancels what is to be cancelled', async () => {
    const turns = [bench.worker.runNext(), bench.worker.runNext()];
    await settle();
    bench.runs.get('a')?.run.log.lose();
    bench.log.process('b').isCancelRequested = true;
    await bench.runs.get('b')?.run.log.append({ type: 'message', messageId: 'm', turn: 1, text: 'Hi' });
    await Promise.all(turns);
    expect([bench.endOf('a'), bench.endOf('b')]).toEqual(['fenced', 'cancelled']);
  });

  describe('that drains', () => {
    it('waits for what runs until it must hurry, then ends it', async () => {
      void bench.worker.runNext();
      await settle();
      const hurry = new AbortController();
      const drained = bench.worker.drain(hurry.signal);
      expect(await isSettled(drained)).toBe(false);
      expect(bench.endOf('a')).toBeNull();
      hurry.abort();
      await drained;
      expect([bench.endOf('a'), bench.held]).toEqual(['shutdown', []]);
    });

    it('claims no more', async () => {
      await bench.worker.drain(AbortSignal.abort());
      await bench.worker.runNext();
      expect(bench.claims).toBe(0);
    });

    it('waits for a claim that is on its way, and gives back what it gets by it', async () => {
      const release = bench.holdClaims();
      void bench.worker.runNext();
      const drained = bench.worker.drain(AbortSignal.abort());
      expect(await isSettled(drained)).toBe(false);
      release();
      await drained;
      expect([bench.endOf('a'), bench.held]).toEqual(['shutdown', []]);
    });
  });
});
