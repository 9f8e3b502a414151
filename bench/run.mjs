// `npm run bench`: how long a caller waits for Claude through the service, and how much goes through it, beside what the caller
// would use instead. Everything is real but the model: the CLI asks a scripted Messages API that answers at once, so that what
// is measured is ours and the CLI's. The contenders take turns (A B A B …): these figures are compared pair by pair, since a
// machine's speed drifts. Only the service's own share is looked at twice: of a server that has just started, and, with nothing
// beside it, of one in service. Writes its section of docs/benchmarks.md, in the end bench/leftovers.mjs its own. BENCH_RUNS: rounds
// of one conversation at a time, from which the other numbers of rounds follow.
import { prepare, runShown } from '../scripts/prepared.mjs';

prepare();
const { writeReport } = await import('./report.mjs');
const { withServer } = await import('./server.mjs');
const { bareCli, makeHome } = await import('./bare-cli.mjs');
const { throughService, waitForAnswer } = await import('./service-client.mjs');
const { clisOf, peakMemory, pssOf, untilQuiet } = await import('./machine.mjs');

const RUNS = Number(process.env.BENCH_RUNS ?? 30);
const WARM_UP = 2;
/** In service: a p95 of sixty runs is the luck of three of them. */
const SHARE_ROUNDS = 3 * RUNS;
const SPARES = 2;
const AT_ONCE = 4;
const CROWDS = Math.max(1, Math.min(5, Math.floor(RUNS / 6)));
const CROWD = 16;
const TURNS = 25;

const rounds = [];
const crowds = [];
const shares = { afterStart: [], inService: [] };
let serverMemory;
await withServer(async (server) => {
  for (let round = -WARM_UP; round < RUNS; round += 1) {
    const figures = await inTurn(round, {
      bare: () => bareConversation(server),
      service: () => conversation(server),
    });
    if (round >= 0) {
      rounds.push(figures);
      shares.afterStart.push(...figures.service.shares);
    }
    process.stdout.write(`\r${round < 0 ? 'warming up' : `${round + 1} of ${RUNS}`}   `);
  }
  for (let round = 0; round < CROWDS; round += 1) {
    crowds.push({
      runs: await inTurn(round, { bare: () => bareCrowd(server), service: () => crowd(server) }),
      turns: await inTurn(round, { bare: () => bareTurns(server), service: () => turns(server) }),
      memory: await inTurn(round, { bare: () => bareMemory(server), service: () => serviceMemory(server) }),
    });
    process.stdout.write(`\r${round + 1} of ${CROWDS} crowds   `);
  }
  for (let round = 0; round < SHARE_ROUNDS; round += 1) {
    shares.inService.push(...(await conversation(server)).shares);
    process.stdout.write(`\r${round + 1} of ${SHARE_ROUNDS} in service   `);
  }
  serverMemory = pssOf(server.pid);
});
console.log(`\n${writeReport({ rounds, shares, crowds, serverMemory })}`);
process.exit(runShown(process.execPath, ['bench/leftovers.mjs']));

/** Who goes first changes, so that neither always finds the machine as the other left it. */
async function inTurn(round, contenders) {
  const figures = {};
  const order = Object.entries(contenders);
  for (const [name, run] of round % 2 === 0 ? order : order.toReversed()) figures[name] = await run();
  return figures;
}

/** A new conversation, and its second turn. */
async function bareConversation(server) {
  await untilQuiet(server, SPARES);
  const { home, remove } = makeHome();
  const first = await bareCli(server.messagesUrl, home);
  const second = await bareCli(server.messagesUrl, home, { resume: first.conversation });
  remove();
  return { first, second };
}

async function conversation(server) {
  await untilQuiet(server, SPARES);
  server.log.forgetFirstWords();
  const first = await throughService(server);
  const firstShare = shareOf(first, await server.log.nextFirstWord());
  await untilQuiet(server, SPARES + 1);
  const second = await throughService(server, first.sessionId);
  return { first, second, shares: [firstShare, shareOf(second, await server.log.nextFirstWord())] };
}

/** From the submit to the CLI, what the CLI's question waited for leave, and from the CLI's first word to the caller. */
function shareOf({ sentAt, heardAt }, { askedAt, heldMs, spokeAt }) {
  return askedAt - sentAt + heldMs + (heardAt - spokeAt);
}

/** New conversations, four at a time. @returns how many a second */
async function bareCrowd({ messagesUrl }) {
  return perSecond(CROWD, async () => {
    const { home, remove } = makeHome();
    await bareCli(messagesUrl, home);
    remove();
  });
}

async function crowd(server) {
  await untilQuiet(server, SPARES);
  return perSecond(CROWD, () => waitForAnswer(server));
}

/** Turns of four conversations, all at a time. @returns how many a second */
async function bareTurns({ messagesUrl }) {
  const homes = await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      const { home, remove } = makeHome();
      return { home, remove, resume: (await bareCli(messagesUrl, home)).conversation };
    }),
  );
  const speed = await perSecond(CROWD, (n) => {
    const { home, resume } = homes[n % AT_ONCE];
    return bareCli(messagesUrl, home, { resume });
  });
  for (const { remove } of homes) remove();
  return speed;
}

async function turns(server) {
  const sessions = await Promise.all(Array.from({ length: AT_ONCE }, () => waitForAnswer(server)));
  await untilQuiet(server, SPARES);
  const began = performance.now();
  await Promise.all(
    sessions.map(async (session) => {
      for (let turn = 0; turn < TURNS; turn += 1) await waitForAnswer(server, session);
    }),
  );
  return (AT_ONCE * TURNS * 1000) / (performance.now() - began);
}

/** As `xargs -P4` does it: as soon as one has ended, the next begins. */
async function perSecond(count, run) {
  const began = performance.now();
  let next = 0;
  const lane = async () => {
    for (let n = next++; n < count; n = next++) await run(n);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return (count * 1000) / (performance.now() - began);
}

/** The most that the CLIs have at a time, four at once, in MiB. */
async function bareMemory({ messagesUrl }) {
  const pids = new Set();
  const running = perSecond(2 * AT_ONCE, async () => {
    const { home, remove } = makeHome();
    await bareCli(messagesUrl, home, { onSpawn: (pid) => pids.add(pid) });
    remove();
  });
  return peakMemory(() => [...pids], running);
}

async function serviceMemory(server) {
  await untilQuiet(server, SPARES);
  const running = perSecond(2 * AT_ONCE, () => waitForAnswer(server));
  return peakMemory(() => clisOf(server.directory), running);
}
