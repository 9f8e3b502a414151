import { Redis } from 'ioredis';
import { tick } from '../../test/support/fake-log.js';
import { createStores, type TestStores } from '../../test/support/stores.js';
import { ProcessChannel } from './process-channel.js';
import type { ProcessEvent } from './process-events.schemas.js';

const ID = '01a20ad0-901d-72aa-ab3f-5decf5582876';
const EVENTS: ProcessEvent[] = [
  {
    processId: ID,
    seq: 3,
    createdAt: '2026-01-01T00:00:00.000Z',
    type: 'text',
    messageId: 'm',
    text: '[ü] ',
  },
];

/** Looks again whenever something may have come. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await tick();
}

describe('what servers tell each other', () => {
  let stores: TestStores;
  let clients: Redis[];
  let here: ProcessChannel;
  let there: ProcessChannel;

  const open = () => {
    const [publisher, subscriber] = [new Redis(stores.redisUrl), new Redis(stores.redisUrl)];
    clients.push(publisher, subscriber);
    return new ProcessChannel(publisher, subscriber);
  };

  beforeEach(async () => {
    stores = await createStores();
    clients = [];
    [here, there] = [open(), open()];
  });
  afterEach(async () => {
    for (const client of clients) client.disconnect();
    await stores.drop();
  });

  it('reaches readers on other servers, and those on the same one at once and once', async () => {
    const [heardHere, heardThere]: ProcessEvent[][][] = [[], []];
    await here.subscribeEvents(ID, (events) => heardHere?.push(events));
    await there.subscribeEvents(ID, (events) => heardThere?.push(events));
    here.publishEvents(ID, EVENTS);
    expect(heardHere).toEqual([EVENTS]);
    await until(() => heardThere?.length === 1);
    // What comes after it has come: nothing is on its way any more.
    there.publishEvents(ID, EVENTS);
    await until(() => heardHere?.length === 2);
    expect([heardHere, heardThere]).toEqual([
      [EVENTS, EVENTS],
      [EVENTS, EVENTS],
    ]);
  });

  it('does not end a server that cannot read it, and goes on', async () => {
    const heard: ProcessEvent[][] = [];
    await here.subscribeEvents(ID, (events) => heard.push(events));
    for (const rubbish of ['', 'rubbish', '[{'])
      await clients[0]?.publish(`claude-runner:process-events:${ID}`, rubbish);
    there.publishEvents(ID, EVENTS);
    await until(() => heard.length > 0);
    expect(heard).toEqual([EVENTS]);
  });

  it('is no more heard by a reader that has gone', async () => {
    const heard: ProcessEvent[][] = [];
    await here.subscribeEvents(ID, (events) => heard.push(events));
    here.unsubscribeEvents(ID);
    here.publishEvents(ID, EVENTS);
    expect(heard).toEqual([]);
  });

  it('is a command to look into an inbox', async () => {
    const heard: string[] = [];
    await there.subscribeCommands((id) => heard.push(id));
    here.publishCommand(ID);
    await until(() => heard.length > 0);
    expect(heard).toEqual([ID]);
  });
});
