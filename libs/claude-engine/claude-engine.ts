import { type EngineEvent } from './engine-event.js';
import { type KeptWorkspace } from './engine-folders.js';
import { type Containment } from './launcher.js';
import { type Transcript } from './transcript.js';

/** What to do when a tool call would need somebody's approval. Nobody is asked; there is no way to skip permissions. */
export type PermissionMode = 'deny' | 'acceptEdits' | 'plan';

/** One run of Claude. The caller has validated it: sizes, tool names, and that `timeoutMs` is positive. */
export interface EngineRequest {
  /** Sent to the model as it is: no `@file` mentions, no slash commands. */
  prompt: string;
  /** A UUID, the prompt's name in the transcript: what the transcript holds already is not asked again, but gone on with. */
  promptId?: string;
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
   * `deny`: what would ask is refused. `acceptEdits`: edits in the workspace go ahead, the rest as `deny`. `plan`: Claude
   * reads and plans, and changes nothing.
   */
  permissionMode: PermissionMode;
  /** Requests to the model, at most. */
  maxTurns?: number;
  /** From the first `next()` to the end, the start of the CLI included. */
  timeoutMs: number;
}

export interface RunContext {
  /** Aborting ends the run; `signal.reason` says how: see RunAbort. */
  signal: AbortSignal;
  /**
   * The name of the folder the run works in, made when it is missing and kept afterwards. Letters, digits, `_` and `-`.
   * Runs with one key share the folder.
   */
  workspaceKey: string;
  /**
   * Called once, while the CLI comes up: the model is asked nothing before it resolves. Where it rejects, the run ends as
   * cancelled, without having asked.
   */
  mayAsk?: () => Promise<void>;
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
  engine: 'cli' | 'api';
  isAvailable: boolean;
  /** Version of the CLI, such as `2.1.330`. */
  version: string | null;
  path: string | null;
  containment: Containment;
  /** Why it is not available, for the operator. */
  detail: string | null;
  /** Started ahead, for whoever comes first. */
  spares: SupplyFigures;
  /** Each stays with its session for a while. */
  keptSessions: SupplyFigures;
}

export interface ClaudeEngine {
  readonly name: 'cli' | 'api';
  /**
   * Runs one request to its end. Starts with the first `next()`; the last event is always `ended`, given as soon as it is
   * known. The iterator is done when nothing of the run is left. Throws only on a bug (a
   * workspace key that is not a plain name is one). Stopping early (`return()`, a `break`) ends the run and resolves when
   * nothing of it is left.
   */
  run(request: EngineRequest, context: RunContext): AsyncIterableIterator<EngineEvent>;
  probe(): Promise<EngineHealth>;
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
