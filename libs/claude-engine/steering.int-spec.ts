import { randomUUID } from 'node:crypto';
import { type EngineRequest, Steering } from './index.js';
import { bash, BenchRun, EngineBench, SANDBOX } from './test-support.js';

describe('a run that is steered', () => {
  let bench: EngineBench;
  beforeAll(async () => {
    bench = await EngineBench.open();
  });
  beforeEach(() => bench.api.reset());
  afterAll(() => bench.close());

  const begin = (
    prompt: string,
    steering: Steering,
    request: Partial<EngineRequest> = {},
    workspaceKey = 'work',
  ) => {
    const abort = new AbortController();
    const whole = { prompt, permissionMode: 'deny', timeoutMs: 60_000, ...request } as const;
    return new BenchRun(bench.engine.run(whole, { signal: abort.signal, workspaceKey, steering }), abort);
  };
  const message = (text: string) => ({ id: randomUUID(), text });
  const questions = () =>
    bench.api.requests.filter(({ purpose }) => purpose === 'turn').map(({ prompt }) => prompt);

  it('answers what comes while it speaks, after that, and ends with that answer and all of its figures', async () => {
    const steering = new Steering();
    const run = begin('[[deltas 40 50]]\n[[usage in=10 out=1]]', steering);
    await run.until('text');
    const said = message('[[text And that.]]\n[[usage in=100 out=2]]');
    steering.say(said);
    steering.say(said);
    expect(await run.ending()).toMatchObject({
      kind: 'completed',
      result: 'And that.',
      stopReason: 'end_turn',
      numTurns: 2,
      usage: { inputTokens: 110, outputTokens: 3 },
    });
    expect(run.all('user_message')).toEqual([
      { type: 'user_message', messageId: said.id, text: said.text, isKept: false },
    ]);
    expect(run.all('message').map(({ turn }) => turn)).toEqual([1, 2]);
    expect(run.all('retrying')).toEqual([]);
    expect(run.all('raw')).toEqual([]);
    expect(questions()).toHaveLength(2);
  });

  const describeInASandbox = SANDBOX.mode === 'required' ? describe : describe.skip;
  describeInASandbox('while a tool runs', () => {
    it('has what comes with its result', async () => {
      const steering = new Steering();
      const run = begin(`${bash('sleep 4')}\n[[text Both.]]`, steering, { allowedTools: ['Bash'] });
      await run.until('tool_use');
      steering.say(message('And this'));
      expect(await run.ending()).toMatchObject({ kind: 'completed', result: 'Both.', numTurns: 2 });
      expect(run.all('user_message')).toHaveLength(1);
      expect(JSON.stringify(bench.api.requests.at(-1)?.body)).toContain('And this');
    });
  });

  it.each(['@/etc/passwd', '/clear', '/model opus', '!ls', ' blanks \n'])(
    'sends %j to the model as it is',
    async (words) => {
      const steering = new Steering();
      const text = `${words}\n[[echo]]`;
      const run = begin('[[deltas 40 50]]', steering);
      await run.until('text');
      steering.say(message(text));
      expect(await run.ending()).toMatchObject({ kind: 'completed', result: text });
      expect(JSON.stringify(bench.api.requests.map(({ body }) => body))).not.toContain('root:');
    },
  );

  it('interrupted, is completed with what it had said', async () => {
    const steering = new Steering();
    const run = begin('[[deltas 50 100]]', steering);
    await run.until('text');
    steering.interrupt();
    expect(await run.ending()).toMatchObject({
      kind: 'completed',
      result: expect.stringMatching(/^word-1/) as string,
      stopReason: 'interrupted',
    });
  });

  it('interrupted before it began, asks and is stopped, or does not ask', async () => {
    const steering = new Steering();
    steering.interrupt();
    const run = begin('[[hang]]', steering);
    expect(await run.ending()).toMatchObject({ kind: 'completed', result: '', stopReason: 'interrupted' });
  });

  it('interrupted while something waits, answers that', async () => {
    const steering = new Steering();
    const run = begin('[[deltas 50 100]]', steering);
    await run.until('text');
    steering.say(message('[[text This instead.]]'));
    steering.interrupt();
    expect(await run.ending()).toMatchObject({
      kind: 'completed',
      result: 'This instead.',
      stopReason: 'end_turn',
    });
    expect(run.all('retrying')).toEqual([]);
  });

  it('goes on where more was said just before it would have ended', async () => {
    let asked = 0;
    const steering: Steering = new Steering(() => {
      asked += 1;
      if (asked === 1) steering.say(message('[[text Just in time.]]'));
      return Promise.resolve(asked > 1);
    });
    const run = begin('[[text First.]]', steering);
    expect(await run.ending()).toMatchObject({ kind: 'completed', result: 'Just in time.' });
    expect(asked).toBe(2);
  });

  it('cancelled with something unread, is cancelled, and that is not asked any more', async () => {
    const steering = new Steering();
    const run = begin('[[hang]]', steering);
    await run.until('started');
    steering.say(message('Unread'));
    run.abort();
    expect(await run.ending()).toMatchObject({ kind: 'cancelled' });
    await bench.allGone();
    expect(run.all('user_message')).toEqual([]);
    expect(questions()).not.toContain('Unread');
  });
});
