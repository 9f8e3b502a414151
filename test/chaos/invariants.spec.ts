import type { ProcessEvent } from '../../src/processes/process-events.schemas.js';
import type { Evidence } from './evidence.js';
import { falseRefusals, findViolations } from './invariants.js';
import type { Incarnation } from './server-slot.js';

const ID = '01a21434-4600-70d3-b32a-1fbcc6f7848e';
const OTHER_ID = '01a21434-4600-70d3-b32a-1fbcc6f7848f';
const MARK = 'chaos-1-1-end';
const SESSION = '01a21434-4600-70d3-b32a-21243313952e';
const BEGAN = Date.UTC(2026, 0, 1);
const at = (ms: number) => new Date(BEGAN + ms);

/** One prompt that was accepted, ran in one CLI, completed and was read to its end. */
function wholeEvidence(): Evidence {
  const types = ['created', 'queued', 'started', 'completed'];
  const owner: Incarnation = {
    pid: 10,
    bornAt: BEGAN,
    isListening: true,
    endedAt: null,
    endedBy: null,
    lines: [],
  };
  const submission = {
    mark: MARK,
    atMs: 0,
    prompt: `${MARK}\n[[text Hello]]`,
    door: 'async' as const,
    copies: 1,
    retry: null,
    cancelAfterMs: null,
    readings: [],
    api: 0,
  };
  const reading = { transport: 'sse-after' as const, afterMs: 0, paceMs: 0, hops: [] };
  const events = types.map((type, index) => ({
    processId: ID,
    seq: index + 1,
    type,
    createdAt: at(index * 100),
    payload: { type, detail: index },
  }));
  const told = events.map(({ processId, seq, createdAt, payload }) => ({
    processId,
    seq,
    createdAt: createdAt.toISOString(),
    ...payload,
  }));
  return {
    at: BEGAN + 5000,
    schedule: { seed: 1, durationMs: 1000, redisIsDurable: true, submissions: [submission], faults: [] },
    leaseTtlMs: 3000,
    ledger: {
      submissions: [
        {
          submission,
          accepted: [{ processId: ID, at: BEGAN, by: 'async at api-0' }],
          refused: [],
          broken: [],
          open: new Set(),
        },
      ],
      transcripts: [
        {
          processId: ID,
          reading,
          events: told as unknown as ProcessEvent[],
          connections: 1,
          at: 'api-0',
          isOver: true,
          problems: [],
        },
      ],
      endings: [
        { processId: ID, status: 'completed', finishedAt: at(300).toISOString(), by: 'sse at api-0' },
      ],
      cancels: [],
      problems: [],
    },
    rows: [
      {
        id: ID,
        sessionId: SESSION,
        mark: MARK,
        status: 'completed',
        attempt: 1,
        fence: 1,
        lastSeq: 4,
        createdAt: at(0),
        startedAt: at(200),
        finishedAt: at(300),
        cancelRequestedAt: null,
        error: null,
        owner: null,
        leaseUntil: null,
      },
    ],
    events: new Map([[ID, events]]),
    calls: [{ mark: MARK, at: BEGAN + 250, launch: 'device-1', turn: 0 }],
    strangers: [],
    launches: [
      {
        id: 'launch-1',
        session: SESSION,
        slot: 'worker-0',
        owner,
        pids: new Set([11]),
        firstSeenAt: BEGAN + 150,
        lastSeenAt: BEGAN + 310,
        isLive: false,
      },
    ],
    overlaps: [],
    deeds: [],
    problems: [],
    unsettled: [],
    errorLines: [],
  };
}

const only = <T>(items: readonly T[]) => items[0] as T;
const callFrom = (launch: string, ms: number) => ({ mark: MARK, at: BEGAN + ms, launch, turn: 0 });
const cancelled = (ms: number) => ({
  processId: ID,
  askedAt: BEGAN,
  answer: {
    httpStatus: 202,
    status: 'running',
    cancelRequestedAt: at(ms).toISOString(),
    at: BEGAN + ms,
  },
});

describe('the invariants', () => {
  it('find nothing where every promise was kept', () => {
    expect(findViolations(wholeEvidence())).toEqual([]);
  });

  it.each<[string, (evidence: Evidence) => void, string, RegExp]>([
    ['an accepted id is not in the database', ({ rows }) => void rows.pop(), 'lost', /no such row/],
    [
      'a process never ends',
      ({ rows, events }) => {
        Object.assign(only(rows), { status: 'pending', finishedAt: null, lastSeq: 2 });
        events.set(ID, (events.get(ID) ?? []).slice(0, 2));
      },
      'lost',
      /never ended: it is pending/,
    ],
    [
      'the model is asked for what nobody has submitted',
      ({ calls }) => void calls.push({ ...callFrom('device-2', 0), mark: 'chaos-1-9-end' }),
      'lost',
      /chaos-1-9-end, of which the database knows nothing/,
    ],
    [
      'two CLIs are there at once',
      ({ overlaps }) =>
        void overlaps.push({ session: SESSION, at: BEGAN, launches: ['launch-1', 'launch-2'] }),
      'doubled',
      /Two CLIs \(launches launch-1 and launch-2\)/,
    ],
    [
      'two CLIs have asked the model one after the other, and the caller did not allow it',
      ({ calls }) => void calls.push(callFrom('device-2', 290)),
      'doubled',
      /from 2 CLIs; 1 allowed/,
    ],
    [
      'two CLIs have asked the model in turns, which no number of retries allows',
      ({ calls, ledger }) => {
        calls.push(callFrom('device-2', 260), callFrom('device-1', 270));
        only(ledger.submissions).submission.retry = { maxAttempts: 3, on: ['worker_lost'] };
      },
      'doubled',
      /two CLIs at once/,
    ],
    [
      'an end changes that somebody was shown',
      ({ ledger }) => (only(ledger.endings).status = 'failed'),
      'other',
      /Shown as failed .* it is completed/,
    ],
    [
      'there are two ends',
      ({ events, rows }) => {
        const log = events.get(ID) ?? [];
        log.push({ ...only(log), seq: 5, type: 'cancelled' });
        only(rows).lastSeq = 5;
      },
      'other',
      /terminal events: 4 completed, 5 cancelled/,
    ],
    [
      'a seq is missing',
      ({ events, ledger }) => {
        events.get(ID)?.splice(1, 1);
        ledger.transcripts.length = 0;
      },
      'gap',
      /its log has 1,3,4/,
    ],
    [
      'a reader was told something else',
      ({ ledger }) => (only(only(ledger.transcripts).events).createdAt = at(1).toISOString()),
      'gap',
      /not what the log has/,
    ],
    [
      'a reader came to no end',
      ({ ledger }) => (only(ledger.transcripts).isOver = false),
      'gap',
      /came to 4 of 4 and no further/,
    ],
    [
      'a reader saw a gap',
      ({ ledger }) => void only(ledger.transcripts).problems.push('after 1 came 3'),
      'gap',
      /after 1 came 3/,
    ],
    [
      'a run begins after its cancel',
      ({ ledger, calls, rows }) => {
        ledger.cancels.push(cancelled(10));
        calls.push(callFrom('device-2', 5000));
        Object.assign(only(rows), { finishedAt: at(5100) });
      },
      'other',
      /Cancelled at .*, it was begun at/,
    ],
    [
      'a CLI is still there',
      ({ launches }) => (only(launches).isLive = true),
      'leaked',
      /still there after everything has come to rest/,
    ],
    [
      'a CLI outlives its server by more than a lease',
      ({ launches }) => {
        only(launches).owner.endedAt = BEGAN + 200;
        only(launches).lastSeenAt = BEGAN + 200 + 3000 + 2600;
      },
      'leaked',
      /was seen 5600 ms after its owner's end/,
    ],
    [
      'a CLI asks the model after the end',
      ({ calls }) => void calls.push(callFrom('device-1', 4400)),
      'leaked',
      /it had ended at/,
    ],
    [
      'one key becomes two processes',
      ({ ledger, rows }) => {
        only(ledger.submissions).accepted.push({ processId: OTHER_ID, at: BEGAN, by: 'socket at api-1' });
        rows.push({ ...only(rows), id: OTHER_ID });
      },
      'doubled',
      /became 2 processes/,
    ],
    [
      'a request is never answered',
      ({ ledger }) => void only(ledger.submissions).open.add('waiting at api-0'),
      'other',
      /never answered: waiting at api-0/,
    ],
    [
      'a server ends by itself',
      ({ problems }) => void problems.push('api-0 ended by itself'),
      'other',
      /api-0 ended by itself/,
    ],
    [
      'the process table shows no CLI at all',
      ({ launches }) => (launches.length = 0),
      'other',
      /the harness is blind/,
    ],
  ])('find that %s', (_, spoil, breach, seen) => {
    const evidence = wholeEvidence();
    spoil(evidence);
    expect(findViolations(evidence)).toContainEqual(
      expect.objectContaining({ breach, seen: expect.stringMatching(seen) as string }),
    );
  });

  it('let a process run again where its caller allows it', () => {
    const evidence = wholeEvidence();
    evidence.calls.push(callFrom('device-2', 290));
    only(evidence.ledger.submissions).submission.retry = { maxAttempts: 2, on: ['worker_lost'] };
    expect(findViolations(evidence)).toEqual([]);
  });

  it('count what was refused and made all the same', () => {
    const evidence = wholeEvidence();
    const [record] = evidence.ledger.submissions;
    expect(falseRefusals(evidence)).toEqual([]);
    Object.assign(record ?? {}, {
      accepted: [],
      refused: [{ status: 503, code: 'unavailable', at: BEGAN, by: 'async at api-0' }],
      submission: { ...record?.submission, copies: 0 },
    });
    expect(falseRefusals(evidence)).toEqual([
      { mark: MARK, processId: ID, told: '503 unavailable (async at api-0)' },
    ]);
  });
});
