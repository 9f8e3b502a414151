import { Logger } from '@nestjs/common';
import type { ClaudeEngine, Ending, EngineEvent, RunContext } from '../../libs/claude-engine/index.js';
import { FakeLog, tick } from '../../test/support/fake-log.js';
import { readConfig, requireStores } from '../platform/config/config.js';
import type { TranscriptsService } from '../sessions/transcripts.service.js';
import { EventAppender } from './event-appender.js';
import type { LeaseKeeper, LiveRun } from './lease-keeper.js';
import type { ClaimedProcess } from './process-claims.repository.js';
import { ProcessRunner } from './process-runner.js';
import type { ProcessCommandsRepository } from './process-commands.repository.js';
import type { ProcessesQueue } from './processes.queue.js';
import type { RunWorkspaces } from './run-workspaces.js';
import { RunInbox } from './run-inbox.js';

const NOTHING = {
  stopReason: null,
  usage: null,
  costUsd: null,
  numTurns: null,
  model: null,
  permissionDenials: [],
} as const;
const COMPLETED = { kind: 'completed', result: 'Done.', ...NOTHING } as unknown as Ending;
const OVERLOADED = {
  kind: 'failed',
  error: { code: 'upstream_overloaded', detail: 'Overloaded.', retryable: true, retryAfterMs: null },
  ...NOTHING,
} as unknown as Ending;

/** A run on an engine that says what the test lets it say, and whose CLI leaves when the test lets it. */
function begin(tell: (context: RunContext) => AsyncGenerator<EngineEvent>, retryOn: string[] = []) {
  const log = new FakeLog();
  const process = log.process();
  process.retryOn = retryOn;
  let letCliLeave: () => void = () => undefined;
  const left = new Promise<void>((resolve) => (letCliLeave = resolve));
  const engine = {
    run: async function* (_request: unknown, context: RunContext) {
      yield* tell(context);
      await left;
    },
  } as unknown as ClaudeEngine;
  const dispatched: unknown[] = [];
  const queue = { dispatch: (next: unknown[]) => Promise.resolve(dispatched.push(...next)) };
  const config = requireStores(readConfig({ DATABASE_URL: 'postgresql://x', REDIS_URL: 'redis://x' }));
  const workspace = {
    begin: () => Promise.resolve(),
    changes: () => Promise.resolve(null),
    stop: () => undefined,
  };
  const runner = new ProcessRunner(
    config,
    engine,
    { isHeld: () => true } as unknown as LeaseKeeper,
    queue as unknown as ProcessesQueue,
    {} as TranscriptsService,
    { watch: () => workspace } as unknown as RunWorkspaces,
    {} as ProcessCommandsRepository,
  );
  const controller = new AbortController();
  const appender = new EventAppender(log.repository, log.endings, log.channel);
  const runLog = appender.open(process.run, { onCancelRequested: jest.fn(), onLost: jest.fn() });
  const killer = new AbortController();
  const run: LiveRun = { ...process.run, log: runLog, controller, killer, inbox: new RunInbox() };
  const claimed = { id: process.id, prompt: 'Hi', request: {}, sessionId: 's', attempt: 1, retryOn };
  const ran = runner.run(claimed as unknown as ClaimedProcess, run);
  return { log, process, run, ran, letCliLeave, dispatched };
}

const settle = async () => {
  for (let turn = 0; turn < 10; turn += 1) await tick();
};

async function* say(...events: EngineEvent[]): AsyncGenerator<EngineEvent> {
  for (const event of events) yield await Promise.resolve(event);
}
const ended = (ending: Ending): EngineEvent => ({ type: 'ended', ending });
const text = (said: string): EngineEvent => ({ type: 'text', messageId: 'm', text: said });

describe('a claimed process', () => {
  beforeAll(() => {
    Logger.overrideLogger(false);
  });

  it.each([
    ['completed', COMPLETED],
    ['failed', OVERLOADED],
  ])('has its ending as soon as it is known, while the CLI is still leaving: %s', async (status, ending) => {
    const { process, letCliLeave, ran } = begin(() => say(text('a'), ended(ending)));
    await settle();
    expect([process.status, process.events.map(({ type }) => type)]).toEqual([status, ['text', status]]);
    letCliLeave();
    await ran;
  });

  it('waits for its next run only when the CLI of this one is gone: two of one process must not meet', async () => {
    const { process, letCliLeave, ran, dispatched } = begin(
      () => say(text('a'), ended(OVERLOADED)),
      ['upstream_overloaded'],
    );
    await settle();
    expect(process.status).toBe('running');
    letCliLeave();
    await ran;
    expect(process.status).toBe('pending');
    expect(dispatched).toEqual([{ id: process.id, afterMs: 1_000 }]);
  });

  it('is lost, and no failure of its own, when the server has ended it', async () => {
    const byServer = {
      ...OVERLOADED,
      error: { code: 'engine_unavailable', detail: 'Lost touch.', retryable: true, retryAfterMs: null },
      isByServer: true,
    } as unknown as Ending;
    const repeated = begin(() => say(text('a'), ended(byServer)), ['worker_lost']);
    repeated.letCliLeave();
    await repeated.ran;
    expect(repeated.process.status).toBe('pending');
    const failed = begin(() => say(text('a'), ended(byServer)), ['engine_unavailable']);
    failed.letCliLeave();
    await failed.ran;
    expect(failed.process.status).toBe('failed');
  });

  it('fails as ours when its engine stops without an ending, or breaks', async () => {
    const silent = begin(() => say(text('a')));
    silent.letCliLeave();
    await silent.ran;
    expect([silent.process.status, silent.process.events.map(({ type }) => type)]).toEqual([
      'failed',
      ['text', 'failed'],
    ]);
    const broken = begin(async function* () {
      yield await Promise.resolve(text('a'));
      throw new Error('a bug');
    });
    await broken.ran;
    expect(broken.process.events.map(({ type }) => type)).toEqual(['text', 'failed']);
  });

  it('is left as it is once it is lost: what becomes of it is another’s say', async () => {
    const { process, run, ran, letCliLeave } = begin(async function* () {
      yield await Promise.resolve(text('a'));
      await settle();
      run.log.lose();
      yield text('b');
      yield ended(COMPLETED);
    });
    letCliLeave();
    await ran;
    expect([process.status, process.events.map(({ type }) => type)]).toEqual(['running', ['text']]);
  });

  it('that is lost is not over before its CLI is gone: it may be given to another worker then', async () => {
    const { run, ran, letCliLeave } = begin(async function* () {
      yield await Promise.resolve(text('a'));
      await settle();
      run.log.lose();
      yield ended(COMPLETED);
    });
    let isOver = false;
    void ran.then(() => (isOver = true));
    await settle();
    await settle();
    expect(isOver).toBe(false);
    letCliLeave();
    await ran;
  });

  it('must not begin when a cancel was asked for, or it is another’s by now', async () => {
    const begun: string[] = [];
    const ask = async function* ({ mayAsk }: RunContext) {
      begun.push(
        await mayAsk!().then(
          () => 'yes',
          () => 'no',
        ),
      );
      yield ended(COMPLETED);
    };
    for (const change of ['nothing', 'cancel', 'fence'] as const) {
      const { process, letCliLeave, ran } = begin(ask);
      process.isCancelRequested = change === 'cancel';
      if (change === 'fence') process.fence += 1;
      letCliLeave();
      await ran;
    }
    expect(begun).toEqual(['yes', 'no', 'no']);
  });
});
