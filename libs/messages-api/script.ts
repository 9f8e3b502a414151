import type { Answer } from './answer.js';
import type { ToolResult } from './conversation.js';
import type { RequestMessage } from './request-body.js';

/** A turn of somebody's conversation, as a script is asked about it. */
export interface ScriptedRequest {
  /** What the user typed last, as typed; '' if nobody typed anything. */
  readonly prompt: string;
  readonly model: string;
  readonly messages: readonly RequestMessage[];
  /** The tools offered, as sent. */
  readonly tools: readonly Readonly<Record<string, unknown>>[];
  /** Messages of the assistant since the prompt: 0 for its first answer, 1 after its first tool. */
  readonly turn: number;
  /** What the tools that were asked for last gave back; empty if none was since the prompt. */
  readonly lastToolResults: readonly ToolResult[];
  /** The whole parsed body. */
  readonly body: Readonly<Record<string, unknown>>;
  /** Aborted when the client leaves or the server closes; the answer is not waited for any longer then. */
  readonly signal: AbortSignal;
}

/** Decides what the stand-in answers. One that throws is answered with a 500 that says so. */
export type Script = (request: ScriptedRequest) => Answer | Promise<Answer>;
