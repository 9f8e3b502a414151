/** A block of a message; what it holds depends on its type. */
export interface ContentBlock {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** A message of the request. The Claude CLI also sends `system` ones, first or last or between. */
export interface RequestMessage {
  readonly role: 'user' | 'assistant' | 'system';
  readonly content: string | readonly ContentBlock[];
}

/** What the stand-in reads of a request to `/v1/messages`; the rest stays in `body`. */
export interface MessagesBody {
  readonly model: string;
  /** 0 where it may be left out: when counting tokens. */
  readonly maxTokens: number;
  readonly stream: boolean;
  readonly messages: readonly RequestMessage[];
  readonly tools: readonly Readonly<Record<string, unknown>>[];
  readonly body: Readonly<Record<string, unknown>>;
}

/** The body is not what the API takes. `message` is worded for its sender; the API answers it with a 400. */
export class InvalidBodyError extends Error {}

/**
 * Reads a parsed JSON body, as strictly as the fields that the stand-in depends on need.
 * @throws InvalidBodyError naming the first field that is wrong
 */
export function readMessagesBody(body: unknown, needs: { maxTokens: boolean }): MessagesBody {
  if (!isRecord(body)) throw new InvalidBodyError('The body must be a JSON object.');
  const { model, max_tokens: maxTokens, messages, tools, stream } = body;
  if (typeof model !== 'string' || model === '') throw new InvalidBodyError('model: Field required');
  if (needs.maxTokens && !isPositiveInteger(maxTokens)) {
    throw new InvalidBodyError('max_tokens: Input should be an integer of at least 1');
  }
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new InvalidBodyError('messages: at least one message is required');
  }
  return {
    model,
    maxTokens: isPositiveInteger(maxTokens) ? maxTokens : 0,
    stream: stream === true,
    messages: messages.map(readMessage),
    tools: Array.isArray(tools) ? tools.filter(isRecord) : [],
    body,
  };
}

function readMessage(message: unknown, index: number): RequestMessage {
  const at = `messages.${index}`;
  if (!isRecord(message)) throw new InvalidBodyError(`${at}: Input should be an object`);
  const { role, content } = message;
  if (role !== 'user' && role !== 'assistant' && role !== 'system') {
    throw new InvalidBodyError(`${at}.role: Input should be 'user', 'assistant' or 'system'`);
  }
  if (typeof content === 'string') return { role, content };
  if (!Array.isArray(content) || !content.every(isContentBlock)) {
    throw new InvalidBodyError(`${at}.content: Input should be a string or a list of content blocks`);
  }
  return { role, content };
}

function isContentBlock(value: unknown): value is ContentBlock {
  return isRecord(value) && typeof value.type === 'string';
}

function isPositiveInteger(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) > 0;
}

/** Whether a value is an object of JSON: not null, not an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
