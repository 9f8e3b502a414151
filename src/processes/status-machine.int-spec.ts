import fc from 'fast-check';
import { ModelProcess } from '../../test/support/process-model.js';
import { findBrokenInvariants } from '../../test/support/invariants.js';
import { LEASE_MS, STARTED, WriteSide } from '../../test/support/write-side.js';
import type { Outcome } from './process-outcome.js';
import { afterDrain, afterEnding, afterLoss, type RunHistory, type Verdict } from './run-verdict.js';

const SESSIONS = 3;

const failed = (code: string): Outcome => ({
  status: 'failed',
  error: { code, detail: 'It failed.', retryable: true, retryAfterMs: null },
});
const SHUT_DOWN = failed('engine_unavailable');

/** A step that is taken only where the model says that it can be. */
class Step implements fc.AsyncCommand<ModelProcess[], WriteSide> {
  constructor(
    private readonly name: string,
    private readonly take: (model: ModelProcess[], side: WriteSide) => Promise<void>,
    private readonly canBeTaken: (model: ModelProcess[]) => boolean = () => true,
  ) {}

  check = (model: readonly ModelProcess[]) => this.canBeTaken([...model]);
  toString = () => this.name;

  async run(model: ModelProcess[], side: WriteSide): Promise<void> {
    await this.take(model, side);
    await expectAgreement(model, side);
  }
}

const seen = new Set<string>();

async function expectAgreement(model: ModelProcess[], side: WriteSide): Promise<void> {
  expect(await statesOf(side)).toEqual(model.map(stateOf));
  expect(await findBrokenInvariants(side.stores.query)).toEqual([]);
  for (const { status } of model) seen.add(status);
}

const stateOf = ({
  id,
  status,
  attempt,
  fence,
  lastSeq,
  isCancelRequested,
  crashes,
  losses,
}: ModelProcess) => ({
  id,
  status,
  attempt,
  fence,
  lastSeq,
  // Once it has ended, the end says it.
  isCancelRequested: status === 'cancelled' || isCancelRequested,
  crashes,
  losses,
});

async function statesOf(side: WriteSide) {
  const rows = await side.prisma.process.findMany({ orderBy: { id: 'asc' } });
  return rows.map((row) => ({
    id: row.id,
    status: row.status,
    attempt: row.attempt,
    fence: row.fence,
    lastSeq: row.lastSeq,
    isCancelRequested: row.cancelRequestedAt !== null,
    crashes: row.crashCount,
    losses: row.lossCount,
  }));
}

type Happening = (process: ModelProcess, side: WriteSide, model: ModelProcess[]) => Promise<void>;

interface Pick {
  number: number;
  /** Most of what happens, happens to what runs. */
  isOfRunning: boolean;
}

function pickFrom(model: ModelProcess[], { number, isOfRunning }: Pick): ModelProcess {
  const running = model.filter(({ isRunning }) => isRunning);
  const among = isOfRunning && running.length > 0 ? running : model;
  return among[number % among.length]!;
}

const isAny = (model: ModelProcess[]) => model.length > 0;

/** A step of one process, in any status. */
const ofProcess = (name: string, pick: Pick, take: Happening) => {
  const title = `${name} ${pick.isOfRunning ? 'running ' : ''}${pick.number}`;
  return new Step(title, (model, side) => take(pickFrom(model, pick), side, model), isAny);
};

const conclude =
  (judge: (run: RunHistory) => Verdict, change: (process: ModelProcess) => void) =>
  async (process: ModelProcess, side: WriteSide) => {
    const { id: processId, fence } = process;
    const concluded = await side.endings.conclude({ processId, fence }, [], judge);
    expect(concluded !== null).toBe(process.isRunning);
    if (!concluded) return;
    change(process);
    if (process.isParked) await side.prolongRetryPause(processId);
  };

async function takeOver(process: ModelProcess, side: WriteSide): Promise<void> {
  const taken = await side.endings.takeOver({ processId: process.id, fence: process.fence }, afterLoss);
  expect(taken !== null).toBe(process.isRunning);
  if (taken) process.loseWorker();
}

const append =
  ({ fence, lastSeq }: { fence: number; lastSeq: number }) =>
  async (process: ModelProcess, side: WriteSide) => {
    const run = { processId: process.id, fence: process.fence + fence };
    const events = ['a', 'b'].map((text) => ({ type: 'text' as const, messageId: 'm', text }));
    const appended = await side.log.append([{ run, lastSeq: process.lastSeq + lastSeq, events, facts: {} }]);
    const isIts = process.isRunning && fence === 0 && lastSeq === 0;
    expect(appended.size).toBe(isIts ? 1 : 0);
    if (isIts) process.lastSeq += events.length;
  };

const submit = fc
  .record({
    session: fc.nat(SESSIONS - 1),
    maxAttempts: fc.integer({ min: 1, max: 3 }),
    on: fc.subarray(['worker_lost', 'timeout']),
  })
  .map(
    ({ session, ...retry }) =>
      new Step(`submit(${session}, ${JSON.stringify(retry)})`, async (model, side) => {
        const id = await side.submit({
          maxAttempts: retry.maxAttempts,
          retryOn: retry.on,
          queueTimeoutMs: 3_600_000,
        });
        const sibling = model.find((process) => process.session === session);
        if (sibling)
          await side.stores.query(
            'UPDATE processes SET session_id = (SELECT session_id FROM processes WHERE id = $1) WHERE id = $2',
            [sibling.id, id],
          );
        model.push(new ModelProcess(id, session, retry));
      }),
  );

async function claim(model: ModelProcess[], side: WriteSide): Promise<void> {
  const eligible = model.filter((process) => process.mayRun(model));
  const claimed = await side.claims.claim('worker', LEASE_MS);
  expect(claimed !== null).toBe(eligible.length > 0);
  if (!claimed) return;
  expect(eligible.map(({ id }) => id)).toContain(claimed.id);
  model.find(({ id }) => id === claimed.id)?.claim();
}

async function overdue(process: ModelProcess, side: WriteSide, model: ModelProcess[]): Promise<void> {
  await side.passQueueDeadline(process.id);
  process.isOverdue = true;
  const late = model.filter(({ isLate }) => isLate);
  expect((await side.claims.findOverdue(10)).sort()).toEqual(late.map(({ id }) => id).sort());
  const ended = await side.endings.failOverdue(process.id, failed('queue_timeout'));
  expect(ended !== null).toBe(process.isLate);
  process.expireInQueue();
}

/** What may happen to a process, whatever it is doing. */
const STEPS: Record<string, Happening> = {
  begin: async (process, side) => {
    const begun = await side.log.begin({ processId: process.id, fence: process.fence });
    expect(begun).toEqual(process.isRunning ? { cancelRequested: process.isCancelRequested } : null);
    if (begun) process.begin();
  },
  start: async (process, side) => {
    const run = { processId: process.id, fence: process.fence };
    const appended = await side.log.append([{ run, lastSeq: process.lastSeq, ...STARTED }]);
    expect(appended.size).toBe(process.isRunning ? 1 : 0);
    if (process.isRunning) process.start();
  },
  append: append({ fence: 0, lastSeq: 0 }),
  'append by another fence': append({ fence: -1, lastSeq: 0 }),
  'append again': append({ fence: 0, lastSeq: -1 }),
  complete: conclude(
    (run) => afterEnding(run, { status: 'completed' }),
    (process) => process.endRun({ status: 'completed' }),
  ),
  interrupt: conclude(
    (run) => afterEnding(run, { status: 'cancelled' }),
    (process) => process.endRun({ status: 'cancelled' }),
  ),
  'time out': conclude(
    (run) => afterEnding(run, failed('timeout')),
    (process) => process.endRun({ status: 'failed', code: 'timeout' }),
  ),
  break: conclude(
    (run) => afterEnding(run, failed('internal')),
    (process) => process.endRun({ status: 'failed', code: 'internal' }),
  ),
  drain: conclude(
    (run) => afterDrain(run, SHUT_DOWN),
    (process) => process.shutWorkerDown(),
  ),
  lose: async (process, side) => {
    if (process.isRunning) await side.expire(process.id);
    const expired = await side.claims.findExpired(10);
    expect(expired.map(({ processId }) => processId)).toEqual(process.isRunning ? [process.id] : []);
    await takeOver(process, side);
  },
  cancel: async (process, side) => {
    const kinds = { pending: 'ended', running: 'requested' } as Record<string, string>;
    const expected = kinds[process.status] ?? 'too_late';
    expect((await side.endings.cancel(process.id, side.userId)).kind).toBe(expected);
    process.cancel();
  },
  overdue,
  'let the time of its retry come': async (process, side) => {
    await side.endRetryPause(process.id);
    process.isParked = false;
  },
};

describe('the status machine', () => {
  let side: WriteSide;

  beforeAll(async () => {
    side = await WriteSide.open();
  });
  afterAll(() => side.close());

  it('does in PostgreSQL what the model says, and the invariants hold after every step', async () => {
    const step = fc
      .tuple(
        fc.constantFrom(...Object.keys(STEPS)),
        fc.record({ number: fc.nat(5), isOfRunning: fc.boolean() }),
      )
      .map(([name, pick]) => ofProcess(name, pick, STEPS[name]!));
    const claims = fc.constant(new Step('claim', claim));
    await fc.assert(
      fc.asyncProperty(
        fc.commands([submit, claims, claims, step, step, step, step, step], { maxCommands: 40, size: 'max' }),
        async (commands) => {
          await side.clear();
          await fc.asyncModelRun(() => ({ model: [], real: side }), commands);
        },
      ),
      { numRuns: 40 },
    );
    expect([...seen].sort()).toEqual(['cancelled', 'completed', 'failed', 'pending', 'running']);
  });
});
