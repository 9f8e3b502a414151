import { v7 as uuid } from 'uuid';
import { WriteSide } from '../../test/support/write-side.js';
import { ProcessInboxRepository } from './process-inbox.repository.js';
import { afterLoss } from './run-verdict.js';

describe('the inbox of a running process', () => {
  let side: WriteSide;
  let inbox: ProcessInboxRepository;

  beforeAll(async () => {
    side = await WriteSide.open();
    inbox = new ProcessInboxRepository(side.prisma);
  });
  afterAll(() => side.close());
  beforeEach(() => side.clear());

  const put = async (processId: string, kind: string) => {
    const { id } = await side.prisma.processCommand.create({
      data: { id: uuid(), processId, kind, userId: side.userId },
    });
    return id;
  };
  const kindsFor = async (owner: string, ...runs: { processId: string; fence: number }[]) =>
    (await side.commands.read(owner, runs)).map(({ kind }) => kind);

  it('is read by the owner in the order in which it was filled, until it is marked', async () => {
    const [run, other] = [await side.run(), await side.run()];
    await side.endings.cancel(run.processId, side.userId);
    const second = await put(run.processId, 'second');
    await put(other.processId, 'third');
    await put(run.processId, 'fourth');
    const all = ['cancel', 'second', 'third', 'fourth'];
    expect(await kindsFor('worker', run, other)).toEqual(all);
    expect(await kindsFor('worker', run, other)).toEqual(all);
    await side.commands.mark(run, [second]);
    expect(await kindsFor('worker', run, other)).toEqual(['cancel', 'third', 'fourth']);
    expect(await kindsFor('worker', run)).toEqual(['cancel', 'fourth']);
  });

  it('is closed to whoever does not run it, or does so no more', async () => {
    const run = await side.run();
    const id = await put(run.processId, 'wish');
    expect(await kindsFor('another', run)).toEqual([]);
    await side.endings.conclude(run, [], afterLoss);
    expect(await kindsFor('worker', run)).toEqual([]);
    const { fence } = await side.claim();
    const next = { ...run, fence };
    await side.commands.mark(run, [id]);
    expect([await kindsFor('worker', run), await kindsFor('worker', next)]).toEqual([[], ['wish']]);
    await side.commands.mark(next, [id]);
    expect(await kindsFor('worker', next)).toEqual([]);
  });

  describe('decides a question for permission', () => {
    const asked = async () => {
      const run = await side.startedRun({ request: { permissionMode: 'ask' } });
      const permissionId = uuid();
      const expiresAt = new Date().toISOString();
      const question = { toolUseId: 't', tool: 'Bash', input: {}, expiresAt };
      const requested = { type: 'permission_requested', permissionId, ...question } as const;
      await side.log.append([{ run, lastSeq: run.lastSeq, events: [requested], facts: {} }]);
      const place = { userId: side.userId, processId: run.processId, permissionId };
      const answer = (decision: 'allow' | 'deny', userId = side.userId) =>
        inbox.answer({ ...place, userId }, { decision });
      return { run, permissionId, place, answer };
    };

    it('once, whoever of the callers and the clock comes first', async () => {
      const { run, permissionId, answer } = await asked();
      const [allowed, denied, refused] = await Promise.all([
        answer('allow'),
        answer('deny'),
        side.commands.refuse(run, permissionId, 'expired'),
      ]);
      expect(await side.prisma.processCommand.count()).toBe(1);
      const kinds = [allowed.kind, denied.kind];
      const taken = kinds.filter((kind) => kind === 'taken').length;
      expect(taken).toBe(refused?.by === null ? 0 : 1);
      expect(kinds.every((kind) => ['taken', 'answered', 'expired'].includes(kind))).toBe(true);
    });

    it('in the server’s name when nobody has, and then nobody else', async () => {
      const { run, permissionId, answer } = await asked();
      const expired = { decision: 'deny', reason: 'expired', by: null };
      expect(await side.commands.refuse(run, permissionId, 'expired')).toEqual(expired);
      expect(await side.commands.refuse(run, permissionId, 'withdrawn')).toEqual(expired);
      expect(await answer('allow')).toEqual({ kind: 'expired' });
    });

    it('with the same answer again as before, also once the process has ended', async () => {
      const { run, answer } = await asked();
      expect(await answer('allow')).toEqual({ kind: 'taken' });
      await side.endings.conclude(run, [], afterLoss);
      expect(await answer('allow')).toEqual({ kind: 'taken_before' });
      expect(await answer('deny')).toEqual({ kind: 'answered' });
    });

    it('for the owner of the process alone, and of this process', async () => {
      const { place, answer } = await asked();
      const other = await side.startedRun();
      expect(await answer('allow', uuid())).toEqual({ kind: 'unknown_process' });
      expect(await inbox.answer({ ...place, processId: other.processId }, { decision: 'allow' })).toEqual({
        kind: 'unknown_permission',
      });
      expect(await side.prisma.processCommand.count()).toBe(0);
    });

    it('as withdrawn where its run is lost: the log says so before it says what becomes of the process', async () => {
      const { run, permissionId, answer } = await asked();
      await side.prisma.process.update({
        where: { id: run.processId },
        data: { maxAttempts: 2, retryOn: ['worker_lost'] },
      });
      await side.endings.conclude(run, [], afterLoss);
      expect(await answer('allow')).toEqual({ kind: 'not_started' });
      expect((await side.events(run.processId)).slice(-2)).toMatchObject([
        { type: 'permission_resolved', permissionId, decision: 'deny', by: null, reason: 'withdrawn' },
        { type: 'retrying' },
      ]);
      await side.claim();
      expect(await answer('allow')).toEqual({ kind: 'withdrawn' });
    });
  });
});
