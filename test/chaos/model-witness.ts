import {
  createDirectiveScript,
  type MessagesApi,
  type ScriptedRequest,
  startMessagesApi,
} from '../../libs/messages-api/index.js';

/** One request to the model, as the scripted Messages API has seen it. */
export interface ModelCall {
  mark: string;
  at: number;
  /** Which CLI asked: it makes up a device id for its configuration folder, and that is its launch's own. */
  launch: string;
  /** Answers of the model since the prompt: 0 is the prompt itself. */
  turn: number;
}

const MARK = /chaos-\d+-\d+-end/g;

/** The model, which answers as prompts tell it, and remembers who asked it what. */
export class ModelWitness {
  readonly calls: ModelCall[] = [];
  /** Requests that no submission accounts for. */
  readonly strangers: string[] = [];

  private constructor(private readonly api: MessagesApi) {}

  static async start(): Promise<ModelWitness> {
    const api = await startMessagesApi();
    const witness = new ModelWitness(api);
    const answer = createDirectiveScript();
    api.script((request) => {
      witness.see(request);
      return answer(request);
    });
    return witness;
  }

  get url(): string {
    return this.api.url;
  }

  close(): Promise<void> {
    return this.api.close();
  }

  private see(request: ScriptedRequest): void {
    const mark = lastMark(request.prompt) ?? lastMark(JSON.stringify(request.messages));
    const launch = deviceIn(request.body);
    if (mark === null || launch === null) this.strangers.push(request.prompt.slice(0, 200));
    else this.calls.push({ mark, at: Date.now(), launch, turn: request.turn });
  }
}

const lastMark = (text: string) => text.match(MARK)?.at(-1) ?? null;

function deviceIn(body: ScriptedRequest['body']): string | null {
  const { user_id: user } = (body.metadata ?? {}) as { user_id?: unknown };
  if (typeof user !== 'string') return null;
  return /"device_id":"([^"]+)"/.exec(user)?.[1] ?? null;
}
