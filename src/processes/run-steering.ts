import { Steering, type UserMessageEvent } from '../../libs/claude-engine/index.js';
import type { LiveRun } from './lease-keeper.js';
import type { ProcessCommandsRepository, SentMessage } from './process-commands.repository.js';
import { whileOurs } from './while-ours.js';

/** What the owner of a process says to its run: from the inbox to the engine, and back what was read. */
export class RunSteering {
  readonly steering = new Steering(() => this.mayEnd());
  /** What a run before has read. */
  private readonly readBefore = new Set<string>();

  constructor(
    private readonly run: LiveRun,
    private readonly commands: ProcessCommandsRepository,
  ) {
    run.inbox.on('message', ({ id, payload }) => {
      this.steering.say({ id, ...(payload as { text: string }) });
      // It is done once it has been read.
      return false;
    });
    run.inbox.on('interrupt', () => {
      this.steering.interrupt();
      return true;
    });
  }

  /** Says again what runs before this one were told: what they had kept of it, the engine does not say twice. */
  async repeat(): Promise<void> {
    for (const message of await this.sent()) {
      if (message.isMarked) this.readBefore.add(message.id);
      this.steering.say(message);
    }
  }

  /** Whether the log says so already: it was read and kept by a run before this one. */
  isTold({ messageId, isKept }: UserMessageEvent): boolean {
    return isKept && this.readBefore.has(messageId);
  }

  /** It need not be read again, once the log says that it was. */
  async noteRead({ messageId }: UserMessageEvent): Promise<void> {
    await this.run.log.settled();
    await whileOurs(this.run.log, () => this.commands.mark(this.run, [messageId]));
  }

  /** Everything that is sent up to here is answered by this run, and nothing after. */
  private async mayEnd(): Promise<boolean> {
    const { log } = this.run;
    const isClosed = await whileOurs(log, () => this.commands.close(this.run, this.steering.count));
    if (!isClosed) for (const message of await this.sent()) this.steering.say(message);
    return isClosed;
  }

  private sent(): Promise<SentMessage[]> {
    return whileOurs(this.run.log, () => this.commands.messagesOf(this.run));
  }
}
