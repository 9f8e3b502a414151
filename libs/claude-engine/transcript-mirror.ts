import { type SessionStore } from '@anthropic-ai/claude-agent-sdk';
import { type TranscriptEntry } from './transcript.js';

/** Where a conversation is kept. */
export interface MirrorTarget {
  append(cliSessionId: string, subpath: string, entries: TranscriptEntry[]): Promise<void>;
}

/**
 * What a CLI writes its record of the conversation to: whoever has asked it last. What it notes in between, for itself, waits
 * for the next who asks: later entries may refer to it.
 */
export class TranscriptMirror {
  private target: MirrorTarget | null = null;
  private readonly waiting: { cliSessionId: string; subpath: string; entries: TranscriptEntry[] }[] = [];

  readonly store: SessionStore = {
    append: ({ sessionId, subpath = '' }, entries) => this.append(sessionId, subpath, entries),
    // It lies in the configuration of the launch already: the SDK would put it into a folder that outlives a crash.
    load: () => Promise.resolve(null),
  };

  connect(target: MirrorTarget | null): void {
    this.target = target;
  }

  private async append(cliSessionId: string, subpath: string, entries: TranscriptEntry[]): Promise<void> {
    const { target, waiting } = this;
    if (!target) {
      waiting.push({ cliSessionId, subpath, entries });
      return;
    }
    for (let [earlier] = waiting; earlier; [earlier] = waiting) {
      await target.append(earlier.cliSessionId, earlier.subpath, earlier.entries);
      waiting.shift();
    }
    await target.append(cliSessionId, subpath, entries);
  }
}
