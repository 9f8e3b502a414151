export { CliEngine, type CliEngineOptions } from './cli-engine.js';
export {
  type ClaudeEngine,
  type EngineHealth,
  type EngineRequest,
  type PermissionMode,
  type RunContext,
  type SupplyFigures,
} from './claude-engine.js';
export {
  type CancelledEnding,
  type CompletedEnding,
  type Ending,
  type EndedEvent,
  ENGINE_ERROR_CODES,
  type EngineError,
  type EngineErrorCode,
  type EngineEvent,
  type FailedEnding,
  MAX_TEXT_LENGTH,
  type MessageEvent,
  type PartialOutcome,
  type PermissionDenial,
  type RawEvent,
  type RetryingEvent,
  type StartedEvent,
  type StopReason,
  type TextEvent,
  type ThinkingEvent,
  type ToolResultEvent,
  type ToolUseEvent,
  type Usage,
  type UsageEvent,
  type UserMessageEvent,
} from './engine-event.js';
export { type SupplyOptions } from './cli-supply.js';
export { EngineFolders } from './engine-folders.js';
export { WorkspaceNotCopied } from './workspace-copy.js';
export { FallbackEngine } from './fallback-engine.js';
export { type EngineNotice, type LiveLaunch } from './engine-notice.js';
export { type GuardOptions } from './guard.js';
export { type Containment } from './launcher.js';
export { isAmongTools, type McpServers, mcpToolsOf } from './mcp-servers.js';
export { costOfAll, fullModelName, modelOf } from './model-table.js';
export { schemaProblem } from './output-schema.js';
export { type AskPermission, type PermissionAnswer, type PermissionQuestion } from './permission-question.js';
export { type JsonSchema } from './plain-schema.js';
export { RunAbort, type RunAbortKind } from './run-abort.js';
export { type SandboxOptions, SandboxUnavailableError } from './sandbox.js';
export { mayBeSpoken, type SpokenBlock, spokenIn, type SpokenMessage } from './spoken-message.js';
export { Steering, type UserMessage } from './steering.js';
export { SUPPORTED_TOOLS, type SupportedTool } from './supported-tools.js';
export {
  type KeptTranscript,
  type Transcript,
  type TranscriptEntry,
  type TranscriptPart,
} from './transcript.js';
