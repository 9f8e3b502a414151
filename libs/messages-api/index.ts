export {
  type Answer,
  type AnswerBlock,
  cutAfter,
  type ErrorAnswer,
  errorAfter,
  errorAnswer,
  type ErrorType,
  type HangAnswer,
  hangAnswer,
  type MessageAnswer,
  type MessageOptions,
  type StopReason,
  textAnswer,
  toolAnswer,
  type Usage,
} from './answer.js';
export type { ToolResult } from './conversation.js';
export { createDirectiveScript } from './directive-script.js';
export { type MessagesApi, type MessagesApiOptions, startMessagesApi } from './messages-api.js';
export type { Purpose } from './question.js';
export type { ContentBlock, RequestMessage } from './request-body.js';
export type { Outcome, ReceivedRequest } from './request-log.js';
export type { Script, ScriptedRequest } from './script.js';
