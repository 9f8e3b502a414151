import { chmod, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundledCliPath } from './cli-path.js';
import { type EngineEvent, type EngineRequest } from './index.js';
import { StreamParser } from './stream-parser.js';
import { EngineBench, NO_SANDBOX } from './test-support.js';

/**
 * Asks the real CLI everything in recordings/ again, and compares what it means with what was recorded. With RECORD=1 it
 * records anew; format that with Prettier, and read the difference before you keep it.
 */
const RECORDINGS = join(__dirname, 'recordings');
const isRecording = process.env.RECORD === '1';

/**
 * A case.json: a request, and the event that it is interrupted on, if it is. `isEndedByUs`: the engine does not let the CLI
 * go on as far as it was recorded any more, so that only the parser's test reads it.
 */
type Case = Partial<EngineRequest> & { interruptOn?: EngineEvent['type']; isEndedByUs?: boolean };

let directory: string;
beforeEach(async () => {
  directory = await realpath(await mkdtemp(join(tmpdir(), 'engine-')));
});
afterEach(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));

describe('the real CLI still says what was recorded:', () => {
  it.each(readdirSync(RECORDINGS).filter(isLive))('%s', async (name) => {
    const folder = join(RECORDINGS, name);
    const { interruptOn, ...request } = JSON.parse(await readFile(join(folder, 'case.json'), 'utf8')) as Case;
    const bench = await EngineBench.open({
      directory: join(directory, 'data'),
      cliPath: await teeingCli(),
      // What it writes, and where, is no business of a sandbox.
      sandbox: NO_SANDBOX,
    });
    const run = bench.begin(request);
    if (interruptOn) {
      await run.until(interruptOn);
      run.abort();
    }
    await run.ending();
    await bench.allGone();
    await bench.close();

    const lines = await scrubbedLines(bench.api.url);
    const events = meaningOf(lines);
    if (isRecording) await record(folder, { lines, events });
    const recorded = JSON.parse(await readFile(join(folder, 'events.json'), 'utf8')) as EngineEvent[];
    expect(gist(events)).toEqual(gist(recorded));
  });
});

function isLive(name: string): boolean {
  const { isEndedByUs = false } = JSON.parse(
    readFileSync(join(RECORDINGS, name, 'case.json'), 'utf8'),
  ) as Case;
  return !isEndedByUs;
}

/** The CLI, with a copy of its output. */
async function teeingCli(): Promise<string> {
  const path = join(directory, 'claude');
  await writeFile(
    path,
    `#!/bin/sh\n${bundledCliPath() ?? ''} "$@" | /usr/bin/tee ${join(directory, 'output')}\n`,
  );
  await chmod(path, 0o700);
  return path;
}

/** What the Agent SDK hands on, without what differs from run to run or tells of this machine. */
async function scrubbedLines(apiUrl: string): Promise<Record<string, unknown>[]> {
  const output = (await readFile(join(directory, 'output'), 'utf8'))
    .replaceAll(new RegExp(`${directory}/data/launches/[\\w-]+`, 'g'), '/launch')
    .replaceAll(`${directory}/data/workspaces`, '/workspaces')
    .replaceAll(apiUrl.replace('http://', ''), 'api.test:80');
  const names = new Map<string, string>();
  const rename = (id: string, prefix: string) => {
    const name = names.get(id) ?? `${prefix}-${names.size + 1}`;
    names.set(id, name);
    return name;
  };
  return output
    .replaceAll(/\b(msg|toolu|req)_\w+/g, (id, prefix: string) => rename(id, prefix))
    .replaceAll(/\b[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}\b/g, (id) => rename(id, 'id'))
    .replaceAll(/"\d{4}-\d\d-\d\dT[\d:.]+Z"/g, '"2026-01-01T00:00:00.000Z"')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(({ type }) => !/^(control_|keep_alive)/.test(String(type)))
    .map(withoutOurMachine);
}

/** `system/init` lists what is installed, and where: of that, only what somebody reads. */
function withoutOurMachine(line: Record<string, unknown>): Record<string, unknown> {
  if (line.subtype !== 'init') return line;
  const { type, subtype, cwd, session_id, tools, model, permissionMode, claude_code_version, uuid } = line;
  return { type, subtype, cwd, session_id, tools, model, permissionMode, claude_code_version, uuid };
}

function meaningOf(lines: unknown[]): EngineEvent[] {
  const parser = new StreamParser(() => 0);
  return lines.flatMap((line) => parser.parse(line));
}

async function record(folder: string, told: { lines: unknown[]; events: EngineEvent[] }): Promise<void> {
  await writeFile(
    join(folder, 'lines.jsonl'),
    told.lines.map((line) => `${JSON.stringify(line)}\n`).join(''),
  );
  await writeFile(join(folder, 'events.json'), `${JSON.stringify(told.events, null, 2)}\n`);
}

/** What stays the same from run to run: no ids, tokens, cost, times or versions; neighbouring deltas joined. */
function gist(events: EngineEvent[]): unknown[] {
  const told: { type: string; text?: string }[] = [];
  for (const event of events) {
    const last = told.at(-1);
    if (event.type === 'usage' || event.type === 'raw') continue;
    // How much of a message came before it was void is a matter of milliseconds.
    if (event.type === 'retrying' && last?.type === 'text') last.text = '';
    if (event.type === 'text' && last?.type === 'text') last.text = `${last.text ?? ''}${event.text}`;
    else told.push(gistOf(event));
  }
  return told;
}

function gistOf(event: EngineEvent): { type: string; text?: string } {
  const { type } = event;
  switch (event.type) {
    case 'text':
    case 'thinking':
    case 'message':
      return { type, text: event.text };
    case 'tool_use':
      return { type, text: `${event.name} ${JSON.stringify(event.input)}` };
    case 'tool_result':
      return { type, text: event.content };
    case 'retrying':
      return { type, text: event.code };
    case 'ended': {
      const { kind, stopReason } = event.ending;
      const code = event.ending.kind === 'failed' ? event.ending.error.code : '';
      return { type, text: [kind, code, stopReason].join(' ') };
    }
    default:
      return { type };
  }
}
