/** One line of the CLI's own record of a conversation: ours to keep, and to give back as it was. */
export interface TranscriptEntry {
  type: string;
  /** What the CLI calls it, where it calls it anything: an entry whose uuid is kept already is the same entry. */
  uuid?: string;
  [field: string]: unknown;
}

/** The conversation itself, whose subpath is empty, or that of a subagent. */
export interface TranscriptPart {
  subpath: string;
  entries: TranscriptEntry[];
}

export interface KeptTranscript {
  /** The CLI's own id of the conversation. */
  cliSessionId: string;
  parts: TranscriptPart[];
}

/** Keeps a conversation where the next launch finds it, whichever machine that is on. */
export interface Transcript {
  /** All that is kept, in the order in which it was appended; null where nothing is. */
  load(): Promise<KeptTranscript | null>;
  /**
   * Resolves when they are kept. Called one after the other.
   * @returns its mark from then on; null where that is not known
   */
  append(cliSessionId: string, part: TranscriptPart): Promise<number | null>;
  /** Changes with whatever is appended, by whomever: of two equal marks nothing has come in between. */
  readMark(): Promise<number>;
  /** Something that the CLI wrote was not appended, and will not be. */
  tellGap(reason: string): void;
}
