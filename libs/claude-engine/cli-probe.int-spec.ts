import { mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CliProbe } from './cli-probe.js';

const VERSION = 'echo "9.9.9 (Claude Code)"';
const TUNED = '[ -n "$BUN_JSC_useDFGJIT" ]';
const TUNING = { BUN_JSC_useDFGJIT: '0' };

describe('the probe of a CLI', () => {
  let directory: string;
  let path: string;
  let probe: CliProbe;

  beforeEach(async () => {
    directory = await realpath(await mkdtemp(join(tmpdir(), 'cli-probe-')));
    path = join(directory, 'claude');
    probe = new CliProbe(directory, 100);
  });
  afterEach(() => rm(directory, { recursive: true }));

  const install = (...lines: string[]) =>
    writeFile(path, ['#!/bin/sh', ...lines, ''].join('\n'), { mode: 0o755 });
  /** Far less than a question may take. */
  const ask = async () => {
    const began = performance.now();
    const usable = await probe.requireUsable(path);
    expect(performance.now() - began).toBeLessThan(5000);
    return usable;
  };
  /** Asks until it is tuned: nobody waits for the answer for long. */
  const untilTuned = async () => {
    for (;;) {
      const { tuning } = await ask();
      if (Object.keys(tuning).length > 0) return tuning;
      await sleep(20);
    }
  };

  it('tells how it can be started, and asks once', async () => {
    await install(`echo asked >> ${directory}/log`, VERSION);
    expect(await untilTuned()).toEqual(TUNING);
    await sleep(200);
    expect(await ask()).toEqual({ path, tuning: TUNING });
    expect((await readFile(`${directory}/log`, 'utf8')).trim().split('\n')).toHaveLength(2);
    expect(await probe.look(path)).toEqual({ version: '9.9.9', detail: null });
  });

  it.each([
    ['refuses to be tuned', 'exit 1'],
    ['hangs where it is tuned', 'exec sleep 20'],
    ['says nothing where it is tuned', 'exit 0'],
  ])('has one that %s started as it comes', async (_what, reaction) => {
    await install(`if ${TUNED}; then ${reaction}; fi`, VERSION);
    expect(await ask()).toEqual({ path, tuning: {} });
    expect(await ask()).toEqual({ path, tuning: {} });
    expect(await probe.look(path)).toEqual({ version: '9.9.9', detail: null });
  });

  it('sees that another has taken its place, and forgets what the one before could do', async () => {
    await install(VERSION);
    await untilTuned();
    await install(`if ${TUNED}; then exit 1; fi`, VERSION);
    expect(await ask()).toEqual({ path, tuning: {} });
    await install(VERSION, '# As before.');
    expect(await untilTuned()).toEqual(TUNING);
  });

  it('asks again where it failed to be tuned for a reason of the moment', async () => {
    await install(`if ${TUNED} && [ ! -e ${directory}/is-well ]; then exit 1; fi`, VERSION);
    expect(await ask()).toEqual({ path, tuning: {} });
    await writeFile(join(directory, 'is-well'), '');
    expect(await untilTuned()).toEqual(TUNING);
  });

  it.each([
    ['refuses to be tuned', `if ${TUNED}; then exit 1; fi`],
    ['tells only where it is tuned', `if ! ${TUNED}; then exit 1; fi`],
    ['tells in any case', ':'],
  ])('refuses one that is too old, also where it %s', async (_what, reaction) => {
    await install(reaction, 'echo "2.1.5 (Claude Code)"');
    const askOn = async () => {
      for (;;) await ask();
    };
    await expect(askOn()).rejects.toThrow('Version 2.1.5 is too old');
  });

  it('has nobody wait for more than the first answer', async () => {
    const again = `[ -e ${directory}/asked ] && exec sleep 5; touch ${directory}/asked; exit 1`;
    await install(`if ${TUNED}; then ${again}; fi`, VERSION);
    await ask();
    while (!(await readdir(directory)).includes('asked')) await sleep(20);
    await sleep(500);
    for (let n = 0; n < 3; n += 1) {
      const began = performance.now();
      await ask();
      expect(performance.now() - began).toBeLessThan(900);
    }
  });
});
