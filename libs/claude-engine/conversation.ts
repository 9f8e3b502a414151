import { type Options, type SDKMessage } from '@anthropic-ai/claude-agent-sdk';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { type EngineRequest } from './claude-engine.js';
import { type Question } from './prompt-input.js';
import { CONTINUATION } from './spoken-message.js';
import { type Standing, standingOf } from './standing.js';
import { type KeptTranscript, type Transcript, type TranscriptEntry } from './transcript.js';
import { type MirrorTarget } from './transcript-mirror.js';

/** What a CLI keeps of its costs: what it is given back counts from there, and so would the next run's. */
const COST_ENTRY = 'cost-state';
/** What a CLI keeps of a subagent beside what was said lies in a file of its own. */
const AGENT_ENTRY = 'agent_metadata';

/** The CLI looks for a conversation among all projects of its configuration, whatever they are called. */
const PROJECT = join('projects', 'kept');

/** A conversation between where it is kept and the launch that goes on with it. */
export class Conversation implements MirrorTarget {
  private isOver = false;
  /** Of the transcript, after what was appended last; null where nothing was, or nobody knows. */
  mark: number | null = null;

  private constructor(
    private readonly request: EngineRequest,
    readonly transcript: Transcript | undefined,
    private readonly kept: KeptTranscript | null,
    readonly standing: Standing,
  ) {}

  static async of(request: EngineRequest, transcript: Transcript | undefined): Promise<Conversation> {
    const loaded = (await transcript?.load()) ?? null;
    const kept = loaded && hasBegun(loaded) ? loaded : null;
    const { promptId } = request;
    const standing = promptId === undefined ? ({ kind: 'new' } as const) : standingOf(kept, promptId);
    // What was said is not what was asked for.
    const isAnswered = standing.kind === 'answered' && request.outputSchema === undefined;
    const found = standing.kind === 'answered' && !isAnswered ? ({ kind: 'stopped' } as const) : standing;
    return new Conversation(request, transcript, kept, found);
  }

  /** One that the CLI remembers itself, and is asked something new. */
  static remembered(request: EngineRequest, transcript: Transcript | undefined): Conversation {
    return new Conversation(request, transcript, null, { kind: 'new' });
  }

  /** Whether nothing was said in it before, so that any CLI can begin it. */
  get isFresh(): boolean {
    return this.kept === null && this.standing.kind === 'new';
  }

  /** What the CLI calls the conversation; null before it has begun. */
  get cliSessionId(): string | null {
    return this.kept?.cliSessionId ?? null;
  }

  /** All that is kept of the conversation itself. */
  get entries(): readonly TranscriptEntry[] {
    return this.kept?.parts.find(({ subpath }) => subpath === '')?.entries ?? [];
  }

  /**
   * What the CLI is asked first; null where it goes on by itself.
   * @param isSaidMore whether there are further messages of the user, which come after it
   */
  question(isSaidMore = false): Question | null {
    const { prompt, promptId } = this.request;
    switch (this.standing.kind) {
      case 'new':
        return { text: prompt, uuid: promptId };
      case 'stopped':
        return isSaidMore ? null : { text: CONTINUATION };
      default:
        return null;
    }
  }

  options(): Options {
    return this.kept ? { resume: this.kept.cliSessionId } : {};
  }

  environment(): Record<string, string> {
    if (this.standing.kind !== 'cut_off') return {};
    // A tool call whose result was lost is shown as that: the model must not take it for one that was never made.
    return { CLAUDE_CODE_RESUME_INTERRUPTED_TURN: '1', CLAUDE_CODE_RESUME_SHOWS_CUT_OFF_CALLS: '1' };
  }

  /** Puts what is kept where the CLI looks for it. */
  async writeTo(configFolder: string): Promise<void> {
    if (!this.kept) return;
    const { cliSessionId, parts } = this.kept;
    const project = join(configFolder, PROJECT);
    for (const { subpath, entries } of parts) {
      const path = subpath === '' ? cliSessionId : within(project, cliSessionId, subpath);
      await mkdir(dirname(join(project, path)), { recursive: true });
      const lines = entries.filter(({ type }) => type !== COST_ENTRY && type !== AGENT_ENTRY);
      await writeFile(join(project, `${path}.jsonl`), lines.map(toLine).join(''), { mode: 0o600 });
      const agent = entries.findLast(({ type }) => type === AGENT_ENTRY);
      if (!agent) continue;
      const { type: _type, ...metadata } = agent;
      await writeFile(join(project, `${path}.meta.json`), JSON.stringify(metadata), { mode: 0o600 });
    }
  }

  /** Takes note of what the CLI could not be relieved of. */
  see(line: SDKMessage): void {
    if (line.type === 'system' && line.subtype === 'mirror_error' && !this.isOver)
      this.transcript?.tellGap(line.error);
  }

  /** The run has ended: what the CLI notes for itself after that is not kept. */
  end(): void {
    this.isOver = true;
  }

  async append(cliSessionId: string, subpath: string, entries: TranscriptEntry[]): Promise<void> {
    if (this.isOver || !this.transcript) return;
    this.mark = await this.transcript.append(cliSessionId, { subpath, entries });
  }
}

/** There is nothing to resume where a launch was killed before it had kept more than its notes, or those of a subagent. */
const hasBegun = ({ parts }: KeptTranscript) =>
  parts.some(({ subpath, entries }) => subpath === '' && entries.some(({ type }) => type === 'user'));

const toLine = (entry: TranscriptEntry) => `${JSON.stringify(entry)}\n`;

/** @throws Error for a subpath that leads out of the conversation's folder */
function within(project: string, cliSessionId: string, subpath: string): string {
  const path = join(cliSessionId, subpath);
  const isInside = !relative(join(project, cliSessionId), join(project, path)).startsWith('..');
  if (!isInside || subpath.includes('\0')) throw new Error('A transcript has a part outside of its folder.');
  return path;
}
