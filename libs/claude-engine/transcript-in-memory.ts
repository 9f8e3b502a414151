import {
  type KeptTranscript,
  type Transcript,
  type TranscriptEntry,
  type TranscriptPart,
} from './transcript.js';

/** Keeps a transcript as a database would: by value, and an entry with a uuid once. */
export class KeptInMemory implements Transcript {
  readonly gaps: string[] = [];
  /** By subpath. */
  readonly agents = new Map<string, TranscriptEntry[]>();
  /** The conversation itself. */
  entries: TranscriptEntry[] = [];
  cliSessionId = '';
  isOutOfOrder = false;
  mark = 0;

  load(): Promise<KeptTranscript | null> {
    const { cliSessionId, entries } = this;
    if (entries.length === 0) return Promise.resolve(null);
    const agents = [...this.agents].map(([subpath, said]) => ({ subpath, entries: said }));
    return Promise.resolve(copy({ cliSessionId, parts: [{ subpath: '', entries }, ...agents] }));
  }

  readMark(): Promise<number> {
    return Promise.resolve(this.mark);
  }

  append(cliSessionId: string, { subpath, entries }: TranscriptPart): Promise<number> {
    if (this.isOutOfOrder) return Promise.reject(new Error('out of order'));
    const part = subpath === '' ? this.entries : (this.agents.get(subpath) ?? []);
    if (subpath !== '') this.agents.set(subpath, part);
    const isNew = ({ uuid }: TranscriptEntry) =>
      uuid === undefined || !part.some((kept) => kept.uuid === uuid);
    part.push(...copy(entries.filter(isNew)));
    this.cliSessionId = cliSessionId;
    this.mark += 1;
    return Promise.resolve(this.mark);
  }

  tellGap(reason: string): void {
    this.gaps.push(reason);
  }

  /** Forgets what came after the first entry that satisfies it, as if the launch had been killed then. */
  cutAfter(isLast: (entry: string) => boolean): void {
    const index = this.entries.findIndex((entry) => isLast(JSON.stringify(entry)));
    this.entries = this.entries.slice(0, index + 1);
  }
}

const copy = <T>(value: T) => JSON.parse(JSON.stringify(value)) as T;
