// The shapes of the wire, from Anthropic's own client. Types only: nothing of it is loaded at run time.
export type {
  Message,
  MessageDeltaUsage,
  RawContentBlockDelta,
  RawMessageStreamEvent,
} from '@anthropic-ai/sdk/resources/messages/messages.js';
export type * as Shared from '@anthropic-ai/sdk/resources/shared.js';
