import { type BreakerState } from './circuit-breaker.js';
import { type EngineEvent } from './engine-event.js';
import { type KeptWorkspace } from './engine-folders.js';
import { type Containment } from './launcher.js';
import { type AskPermission } from './permission-question.js';
import { type JsonSchema } from './plain-schema.js';
import { type Steering } from './steering.js';
import { type Transcript } from './transcript.js';

/** What to do when a tool call would need somebody's approval. There is no way to skip permissions. */
export type PermissionMode = 'deny' | 'ask' | 'acceptEdits' | 'plan';

/** One run of Claude. The caller has validated it: sizes, tool names, and that `timeoutMs` is positive. */
export interface EngineRequest {
  /** Sent to the model as it is: no `@file` mentions, no slash commands. */
  prompt: string;
  /** A UUID, the prompt's name in the transcript: what the transcript holds already is not asked again, but gone on with. */
  promptId?: string;
  /** `cli`, or `api`: the Messages API without a CLI, and without tools. `auto` unless told: the API where no CLI starts. */
  engine?: 'auto' | 'cli' | 'api';
  /** Model name or alias; the engine's default when left out. */
  model?: string;
  /** Replaces the CLI's system prompt. With `appendSystemPrompt` also given, that follows it. */
  systemPrompt?: string;
  appendSystemPrompt?: string;
  /**
   * The tools Claude may see, of SUPPORTED_TOOLS; all that the engine offers when left out, none when empty. A run that names
   * one which the engine does not offer fails.
   */
  tools?: string[];
  /** Tools that need no approval: plain names, no patterns. */
  allowedTools?: string[];
  /** Tools taken away again: plain names, no patterns. */
  disallowedTools?: string[];
  /**
   * `deny`: what would ask is refused. `ask`: whoever the run belongs to is asked (`askPermission`). `acceptEdits`: edits in the workspace go ahead, the rest as `deny`. `plan`: Claude
   * reads and plans, and changes nothing.
   */
  permissionMode: PermissionMode;
  /** Requests to the model, at most. */
  maxTurns?: number;
  /** What the run may cost, US dollars. It ends with the request to the model that passes it. */
  maxBudgetUsd?: number;
  /** What the answer must match: checked before by schemaProblem, with `type: object` at its root. */
  outputSchema?: JsonSchema;
  /** From the first `next()` to the end, the start of the CLI included; the time that approvals wait is not. */
  timeoutMs: number;
}

export interface RunContext {
  /** Aborting ends the run; `signal.reason` says how: see RunAbort. */
  signal: AbortSignal;
  /** Aborting kills all of the run at once, whatever `signal` has begun: its lease is lost. See RunAbort, `fenced`. */
  kill?: AbortSignal;
  /**
   * The name of the folder the run works in, made when it is missing and kept afterwards. Letters, digits, `_` and `-`.
   * Runs with one key share the folder.
   */
  workspaceKey: string;
  /**
   * Called once, before the model is asked: until it resolves the model is asked nothing, and nothing of what the CLI says is told
   * or kept. Where it rejects, the run ends without having asked: as the signal says if that is aborted by then, else as failed.
   */
  mayAsk?: () => Promise<void>;
  /** Looked at before each request to the model: what is not held any more asks nothing. Held unless told. */
  isHeld?: () => boolean;
  /** Answers what a run in the mode `ask` must ask for; without it that is refused. */
  askPermission?: AskPermission | undefined;
  /** What the run is told while it goes on; it serves one run. Nothing unless told. */
  steering?: Steering | undefined;
  /** The conversation that the run goes on with, and adds to. Without one it begins a conversation that nobody keeps. */
  transcript?: Transcript;
}

/** CLIs that wait for what they are asked. Counts since the engine was made. */
export interface SupplyFigures {
  /** How many are ready. */
  count: number;
  /** Runs that found one. */
  hits: number;
  /** Runs that one would have served, had there been one. */
  misses: number;
  /** How many gave way to a run. */
  evictions: number;
  /** How long the oldest has waited; null where there is none. */
  oldestMs: number | null;
}

/** Whether an engine can run now, and what it is. Paths are for operators only. */
export interface EngineHealth {
  isAvailable: boolean;
  /** Version of the CLI, such as `2.1.330`. */
  version: string | null;
  path: string | null;
  containment: Containment;
  /** Whether the Messages API answers what needs no tools, while the CLI is not available. */
  hasFallback: boolean;
  /** What stands in front of the Messages API: open while that fails. */
  breaker: BreakerState;
  /** What it offers. */
  tools: readonly string[];
  /** Why it is not available, for the operator. */
  detail: string | null;
  /** Started ahead, for whoever comes first. */
  spares: SupplyFigures;
  /** Each stays with its session for a while. */
  keptSessions: SupplyFigures;
}

export interface ClaudeEngine {
  /**
   * Runs one request to its end. Starts with the first `next()`; the last event is always `ended`, given as soon as it is
   * known. The iterator is done when nothing of the run is left. Throws only on a bug (a
   * workspace key that is not a plain name is one). Stopping early (`return()`, a `break`) ends the run and resolves when
   * nothing of it is left.
   */
  run(request: EngineRequest, context: RunContext): AsyncIterableIterator<EngineEvent>;
  probe(): Promise<EngineHealth>;
  /**
   * Resolves when it makes sense to begin a run: the Messages API is not known to fail, or this is the run that tries it.
   * @returns to be called when the run is over; null where the signal aborts before
   */
  enter(signal: AbortSignal): Promise<(() => void) | null>;
  /** The workspaces that runs have left on this machine. */
  listWorkspaces(): Promise<KeptWorkspace[]>;
  /** Ends the CLI that waits for the next run of this workspace, where one does. */
  forgetWorkspace(key: string): Promise<void>;
  /** Removes a workspace that no run works in. */
  removeWorkspace(key: string): Promise<void>;
  /** Tells that whoever runs the engine is well. Only an engine with a guard listens. */
  heartbeat(): void;
  /** Ends every run, as RunAbort('shutdown') would, and resolves when nothing is left. Idempotent. */
  close(): Promise<void>;
}
