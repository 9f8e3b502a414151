import { mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
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
    probe = new CliProbe(directory);
  });
  afterEach(() => rm(directory, { recursive: true }));

  const install = (...lines: string[]) =>
    writeFile(path, ['#!/bin/sh', ...lines, ''].join('\n'), { mode: 0o755 });
  /** Asks until the answer is in: the first to ask do not wait for long. */
  const tuningWhen = async (isIt: (tuning: object) => boolean) => {
    for (;;) {
      const { tuning } = await probe.requireRecent(path);
      if (isIt(tuning)) return tuning;
      await sleep(20);
    }
  };
  const isTuned = (tuning: object) => Object.keys(tuning).length > 0;

  it('tells how it can be started, and asks once', async () => {
    await install(`echo asked >> ${directory}/log`, VERSION);
    await tuningWhen(isTuned);
    expect(await probe.requireRecent(path)).toEqual({ path, tuning: TUNING });
    expect((await readFile(`${directory}/log`, 'utf8')).trim().split('\n')).toHaveLength(2);
    expect(await probe.look(path)).toEqual({ version: '9.9.9', detail: null });
  });

  it.each([
    ['refuses to be tuned', 'exit 1'],
    ['hangs where it is tuned', 'exec sleep 20'],
    ['says nothing where it is tuned', 'exit 0'],
  ])('has one that %s started as it comes', async (_what, reaction) => {
    await install(`if ${TUNED}; then ${reaction}; fi`, VERSION);
    expect(await probe.requireRecent(path)).toEqual({ path, tuning: {} });
    expect(await probe.requireRecent(path)).toEqual({ path, tuning: {} });
    expect(await probe.look(path)).toEqual({ version: '9.9.9', detail: null });
  });

  it('sees that another has taken its place, and forgets what the one before could do', async () => {
    await install(VERSION);
    await tuningWhen(isTuned);
    await install(`if ${TUNED}; then exit 1; fi`, VERSION);
    expect(await probe.requireRecent(path)).toEqual({ path, tuning: {} });
    await install(VERSION, '# As before.');
    expect(await tuningWhen(isTuned)).toEqual(TUNING);
  });

  it('asks again where it failed to be tuned for a reason of the moment', async () => {
    await install(`if ${TUNED} && [ ! -e ${directory}/is-well ]; then exit 1; fi`, VERSION);
    expect(await probe.requireRecent(path)).toEqual({ path, tuning: {} });
    await writeFile(join(directory, 'is-well'), '');
    expect(await tuningWhen(isTuned)).toEqual(TUNING);
  });

  it('refuses one that is too old, tuned or not', async () => {
    await install(`if ${TUNED}; then exit 1; fi`, 'echo "2.1.5 (Claude Code)"');
    await expect(
      (async () => {
        for (;;) await probe.requireRecent(path);
      })(),
    ).rejects.toThrow('Version 2.1.5 is too old');
  });
});
